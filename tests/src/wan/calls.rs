//! The system calls below the bench that have no safe wrapper among our dependencies: a network namespace of one's
//! own, a TUN device, and waiting for several files up to a moment. All the unsafe code of the bench is here.
#![allow(unsafe_code, reason = "thin wrappers of unshare(2), setns(2), TUNSETIFF and ppoll(2)")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Gives this thread, and whatever it starts from now on, a network of its own, with nothing in it.
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: no memory is involved; only this thread's view of the network changes.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Moves this thread, and whatever it starts from now on, into a network namespace.
pub(super) fn enter_network(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the time of the call, and no memory is involved.
    checked(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Makes a TUN device of this name in this thread's network namespace. Each read gives one IP packet, or
/// [`io::ErrorKind::WouldBlock`]; each write sends one. The device goes with the file.
pub(super) fn open_tun(name: &str) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    assert!(name.len() < libc::IFNAMSIZ, "no name of an interface: {name}");
    // SAFETY: a structure of numbers, for which all zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) })?;
    Ok(file)
}

/// Waits until one of the files can be read, or the time is over.
pub(super) fn wait_readable(files: &[File], within: Duration) -> io::Result<()> {
    let mut waited: Vec<libc::pollfd> = files
        .iter()
        .map(|file| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let within = libc::timespec {
        tv_sec: within.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(within.subsec_nanos()),
    };
    // SAFETY: the kernel reads and writes the entries of the vector, whose number is given, and reads the time.
    let result =
        unsafe { libc::ppoll(waited.as_mut_ptr(), waited.len() as libc::nfds_t, &within, std::ptr::null()) };
    checked(result).map(drop)
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
