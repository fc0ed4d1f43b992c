//! The addresses of this host.

#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of all interfaces; empty when the kernel does not say.
#[must_use]
pub fn addresses() -> Vec<IpAddr> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call fills `first` with a list that is ours until `freeifaddrs`, or fails.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut entry = first;
    while !entry.is_null() {
        // SAFETY: entries of the list are valid until it is freed below.
        let (address, next) = unsafe { ((*entry).ifa_addr, (*entry).ifa_next) };
        found.extend(address_of(address));
        entry = next;
    }
    // SAFETY: the list of the call above, freed once, not used behind this.
    unsafe { libc::freeifaddrs(first) };
    found
}

fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: an address of the list has at least its family, and for these two families the whole
    // structure; it may be less aligned than the structure wants.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let v4 = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
            }
            libc::AF_INET6 => {
                let v6 = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_ours() {
        assert!(addresses().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!addresses().contains(&IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77))));
    }
}
