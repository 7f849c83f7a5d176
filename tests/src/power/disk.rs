//! A disk with a volatile write cache, in memory: what is written is read back at once, and is safe from
//! a power cut only after a flush. The rule: an image of a cut holds every flushed sector, and of each
//! unflushed one either the flushed state or one of the versions written since.

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};

use crate::random::Random;

/// What a disk writes in one piece.
pub const SECTOR_BYTES: usize = 512;

/// Versions of one sector kept between two flushes; older ones are forgotten, as if they had never
/// reached the platter.
pub const MAX_UNFLUSHED_VERSIONS: usize = 4;

/// Chances, one chosen for each cut, that an unflushed sector had reached the platter: from a cache that
/// wrote nothing to one that wrote all.
const SURVIVAL_PERCENT: [u64; 5] = [0, 10, 50, 90, 100];

/// Bytes of an image written or skipped in one piece.
const IMAGE_BLOCK_BYTES: usize = 64 << 10;

type Sector = [u8; SECTOR_BYTES];

/// The disk.
pub struct Disk {
    flushed: Vec<u8>,
    /// By sector number, oldest version first; never an empty list.
    unflushed: BTreeMap<usize, Vec<Sector>>,
}

/// What became of the unflushed sectors in one cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Sectors that had been written and not flushed.
    pub unflushed_sectors: usize,
    /// Those of them of which some unflushed version is in the image.
    pub surviving_sectors: usize,
}

impl Disk {
    /// A disk of zeros; `bytes` is a multiple of the sector.
    pub fn new(bytes: usize) -> Self {
        assert!(bytes.is_multiple_of(SECTOR_BYTES), "a disk is whole sectors");
        Self { flushed: vec![0; bytes], unflushed: BTreeMap::new() }
    }

    /// The disk that an image was taken of, all of it safe.
    pub fn of_image(image: Vec<u8>) -> Self {
        assert!(image.len().is_multiple_of(SECTOR_BYTES), "a disk is whole sectors");
        Self { flushed: image, unflushed: BTreeMap::new() }
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.flushed.len()
    }

    /// What a running system reads: the newest version of everything. `None` outside the disk or off the
    /// sector grid.
    pub fn read(&self, offset: u64, bytes: usize) -> Option<Vec<u8>> {
        let (first, end) = self.sectors(offset, bytes)?;
        let mut out = self.flushed[first * SECTOR_BYTES..end * SECTOR_BYTES].to_vec();
        for (sector, versions) in self.unflushed.range(first..end) {
            let at = (sector - first) * SECTOR_BYTES;
            out[at..at + SECTOR_BYTES].copy_from_slice(versions.last().expect("never an empty list"));
        }
        Some(out)
    }

    /// Writes whole sectors into the volatile cache. `None` outside the disk or off the sector grid.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Option<()> {
        let (first, _) = self.sectors(offset, data.len())?;
        for (sector, bytes) in (first..).zip(data.chunks_exact(SECTOR_BYTES)) {
            let versions = self.unflushed.entry(sector).or_default();
            if versions.len() == MAX_UNFLUSHED_VERSIONS {
                versions.remove(0);
            }
            versions.push(bytes.try_into().expect("chunks of one sector"));
        }
        Some(())
    }

    /// Makes everything written so far safe.
    pub fn flush(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.unflushed) {
            let at = sector * SECTOR_BYTES;
            self.flushed[at..at + SECTOR_BYTES]
                .copy_from_slice(versions.last().expect("never an empty list"));
        }
    }

    /// Writes the image a power cut at this moment could leave. The disk itself goes on.
    pub fn cut(&self, random: &mut Random, image: &mut (impl Write + Seek)) -> io::Result<Cut> {
        let survival_percent = SURVIVAL_PERCENT[random.below(SURVIVAL_PERCENT.len() as u64) as usize];
        write_sparse(&self.flushed, image)?;
        let mut surviving_sectors = 0;
        for (sector, versions) in &self.unflushed {
            if random.percent(survival_percent) {
                let version = random.below(versions.len() as u64) as usize;
                image.seek(SeekFrom::Start((sector * SECTOR_BYTES) as u64))?;
                image.write_all(&versions[version])?;
                surviving_sectors += 1;
            }
        }
        image.flush()?;
        Ok(Cut { unflushed_sectors: self.unflushed.len(), surviving_sectors })
    }

    fn sectors(&self, offset: u64, bytes: usize) -> Option<(usize, usize)> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(bytes)?;
        let fits =
            end <= self.flushed.len() && [offset, bytes].iter().all(|n| n.is_multiple_of(SECTOR_BYTES));
        fits.then_some((offset / SECTOR_BYTES, end / SECTOR_BYTES))
    }
}

/// Leaves holes for blocks of zeros: most of an image is empty, and a cut must not take long.
fn write_sparse(bytes: &[u8], image: &mut (impl Write + Seek)) -> io::Result<()> {
    for (index, block) in bytes.chunks(IMAGE_BLOCK_BYTES).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            image.seek(SeekFrom::Start((index * IMAGE_BLOCK_BYTES) as u64))?;
            image.write_all(block)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const SECTORS: usize = 64;

    fn filled(byte: u8) -> Vec<u8> {
        vec![byte; SECTORS * SECTOR_BYTES]
    }

    fn image_of(disk: &Disk, seed: u64) -> Vec<u8> {
        let mut image = Cursor::new(vec![0; disk.bytes()]);
        disk.cut(&mut Random::new(seed), &mut image).unwrap();
        image.into_inner()
    }

    #[test]
    fn what_is_flushed_is_in_every_image() {
        let mut disk = Disk::new(SECTORS * SECTOR_BYTES);
        disk.write(0, &filled(7)).unwrap();
        disk.flush();
        for seed in 0..50 {
            assert_eq!(image_of(&disk, seed), filled(7), "seed {seed}");
        }
    }

    #[test]
    fn an_unflushed_sector_is_whole_and_of_some_version() {
        let mut disk = Disk::new(SECTORS * SECTOR_BYTES);
        for version in 1..=3 {
            disk.write(0, &filled(version)).unwrap();
        }
        let mut seen = [false; 4];
        for seed in 0..50 {
            for sector in image_of(&disk, seed).chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}: a torn sector");
                seen[usize::from(sector[0])] = true;
            }
        }
        assert_eq!(seen, [true; 4], "every version, and the flushed state, can be what a cut leaves");
    }

    #[test]
    fn the_same_seed_cuts_the_same_image_and_the_disk_goes_on() {
        let mut disk = Disk::new(SECTORS * SECTOR_BYTES);
        disk.write(0, &filled(1)).unwrap();
        let images: Vec<_> = (0..20).map(|seed| image_of(&disk, seed)).collect();
        assert_eq!(images, (0..20).map(|seed| image_of(&disk, seed)).collect::<Vec<_>>());
        assert_eq!(disk.read(0, SECTORS * SECTOR_BYTES).unwrap(), filled(1));
    }

    #[test]
    fn reads_and_writes_off_the_disk_or_the_grid_are_refused() {
        let mut disk = Disk::new(2 * SECTOR_BYTES);
        for (offset, bytes) in [(1, 512), (0, 511), (512, 1024), (1024, 512), (u64::MAX, 512)] {
            assert!(disk.read(offset, bytes).is_none(), "read {offset} {bytes}");
            assert!(disk.write(offset, &vec![0; bytes]).is_none(), "write {offset} {bytes}");
        }
        assert!(disk.read(512, 512).is_some());
    }
}
