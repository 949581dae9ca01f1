//! The proof that a proxy relays: octets both ways, compared by digest.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};

use sha2::{Digest, Sha256};

use crate::tunnel::{self, Proxy};

/// Large enough that whoever sends makes few system calls, small enough for the processor's cache.
pub(crate) const BLOCK: usize = 256 * 1024;

/// Octets each way. More than all the buffers on the way hold together.
const LENGTH: usize = 4 * 1024 * 1024;

const UP: u64 = 0x0123_4567_89ab_cdef;
/// What comes down is made of.
pub(crate) const DOWN: u64 = 0xfedc_ba98_7654_3210;

/// Octets that look random, the same ones for the same seed.
pub(crate) fn octets(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut octets = Vec::with_capacity(length + 8);
    while octets.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        octets.extend_from_slice(&state.to_le_bytes());
    }
    octets.truncate(length);
    octets
}

/// The back end's side: digests what the client sends, answers the digest and octets of its own.
pub(crate) fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut received = vec![0; LENGTH];
    stream.read_exact(&mut received)?;
    stream.write_all(&Sha256::digest(&received))?;
    stream.write_all(&octets(DOWN, LENGTH))
}

/// The client's side.
pub(crate) fn check(proxy: Option<Proxy>, target: SocketAddrV4) -> io::Result<()> {
    exchange(&mut tunnel::open(proxy, target)?)
}

/// The same over a tunnel that is there.
pub(crate) fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let up = octets(UP, LENGTH);
    stream.write_all(&up)?;
    let mut digest = [0; 32];
    stream.read_exact(&mut digest)?;
    if digest != *Sha256::digest(&up) {
        return Err(io::Error::other("what went up arrived changed"));
    }
    let mut down = vec![0; LENGTH];
    stream.read_exact(&mut down)?;
    if Sha256::digest(&down) != Sha256::digest(octets(DOWN, LENGTH)) {
        return Err(io::Error::other("what came down arrived changed"));
    }
    Ok(())
}

/// Sends these octets to somebody who gives back what comes.
pub(crate) fn echo(stream: &mut TcpStream, sent: &[u8]) -> io::Result<()> {
    let mut received = vec![0; sent.len()];
    stream.write_all(sent)?;
    stream.read_exact(&mut received)?;
    if received == sent { Ok(()) } else { Err(io::Error::other("octets came back changed")) }
}
