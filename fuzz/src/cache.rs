//! The protocol of the cache.

use tranship_cache::Identity;
use tranship_cache::wire::{Reply, Request, VERSION};

/// A message of a client. What was understood is said again and understood the same way.
pub fn cache_request(bytes: &[u8]) {
    match Request::decode(bytes) {
        // Of another version only the version is known.
        Ok((_, Request::Hello(hello))) if hello.version != VERSION => {}
        Ok((id, request)) => assert_eq!(Request::decode(&request.encode(id)), Ok((id, request))),
        Err((_, error)) => assert!(!error.to_string().is_empty()),
    }
}

/// A message of a daemon.
pub fn cache_reply(bytes: &[u8]) {
    match Reply::decode(bytes) {
        Ok((id, reply)) => assert_eq!(Reply::decode(&reply.encode(id)), Ok((id, reply))),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A canonical identity: there is one encoding of each.
pub fn identity(bytes: &[u8]) {
    if let Ok(identity) = Identity::decode(bytes) {
        assert_eq!(identity.encode().expect("it was encoded once"), bytes);
    }
}
