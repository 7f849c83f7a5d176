//! Writes the corpus of the fuzz targets anew, from what the code that ships makes: run it after a change of a
//! format, and commit what changes below `tests/fuzz/corpus`. Inputs that fuzzing found (`found-...`) stay.

use std::collections::BTreeMap;
use std::fs;

use littoral_tests::decoders::{TARGETS, corpus};

fn main() -> anyhow::Result<()> {
    for target in TARGETS {
        let folder = corpus::folder(target.name);
        fs::create_dir_all(&folder)?;
        for (name, _) in
            corpus::read(target.name)?.iter().filter(|(name, _)| !name.starts_with(corpus::FOUND))
        {
            fs::remove_file(folder.join(name))?;
        }
    }
    let mut written = BTreeMap::<_, (usize, usize)>::new();
    for ((target, name), bytes) in corpus::make() {
        fs::write(corpus::folder(target).join(name), &bytes)?;
        let (files, total) = written.entry(target).or_default();
        (*files, *total) = (*files + 1, *total + bytes.len());
    }
    for (target, (files, bytes)) in written {
        println!("{target:12} {files:3} files, {bytes:6} bytes");
    }
    Ok(())
}
