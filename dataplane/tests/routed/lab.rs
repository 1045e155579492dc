//! The laboratory of all tests, with other addresses: the hosts of routed mode are at two sites.

#[path = "../lab/mod.rs"]
mod laboratory;

pub use laboratory::*;

/// Address of the host at the first site.
pub const CLIENT: &str = "10.1.0.2";
/// Address of the host at the second site.
pub const SERVER: &str = "10.2.0.2";
/// The same for IPv6.
pub const CLIENT_V6: &str = "fd01::2";
/// The same for IPv6.
pub const SERVER_V6: &str = "fd02::2";
