//! The hash of a key: keyed by this process, so that nobody can aim at a bucket.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::SeedableRandomState;
use siphasher::sip::SipHasher13;

/// Which hash a tracker's table goes by. Either has a key of its own in every process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyHash {
    /// foldhash, some nanoseconds a packet. Nobody can aim without its key; that the key stays hidden from who chooses every
    /// packet and watches how long each takes is not claimed. A search ends after 512 buckets in any case.
    #[default]
    Fast,
    /// SipHash-1-3, which is made to withstand who chooses keys and watches: some ten nanoseconds more a packet.
    Sip,
}

/// Hashes keys.
#[derive(Clone)]
pub(super) enum KeyHasher {
    Fast(Fast),
    Sip(Sip),
}

/// One kind of [`KeyHasher`]: for who has looked which one it is.
pub(super) trait HashKey {
    fn hash<K: Hash>(&self, key: &K) -> u64;
}

#[derive(Clone)]
pub(super) struct Fast(SeedableRandomState);

#[derive(Clone)]
pub(super) struct Sip(SipHasher13);

impl KeyHasher {
    /// With a key of this process.
    pub(super) fn random(kind: KeyHash) -> Self {
        match kind {
            KeyHash::Fast => Self::Fast(Fast(SeedableRandomState::random())),
            KeyHash::Sip => {
                // What the standard library seeds its maps with is the system's randomness; a hash under it is as good.
                let random = || std::hash::RandomState::new().hash_one(0);
                Self::Sip(Sip(SipHasher13::new_with_keys(random(), random())))
            }
        }
    }

    /// The same hash with a key that everybody knows.
    pub(super) fn fix(&mut self) {
        *self = match self {
            Self::Fast(_) => Self::Fast(Fast(SeedableRandomState::fixed())),
            Self::Sip(_) => Self::Sip(Sip(SipHasher13::new_with_keys(0, 0))),
        };
    }
}

impl HashKey for KeyHasher {
    fn hash<K: Hash>(&self, key: &K) -> u64 {
        match self {
            Self::Fast(fast) => fast.hash(key),
            Self::Sip(sip) => sip.hash(key),
        }
    }
}

impl HashKey for Fast {
    /// What [`BuildHasher::hash_one`] gives, but never by a call, for which the key would go through memory.
    #[inline(always)]
    #[allow(clippy::manual_hash_one, reason = "hash_one is not inlined everywhere")]
    fn hash<K: Hash>(&self, key: &K) -> u64 {
        let mut state = self.0.build_hasher();
        key.hash(&mut state);
        state.finish()
    }
}

impl HashKey for Sip {
    #[inline(never)]
    fn hash<K: Hash>(&self, key: &K) -> u64 {
        let mut state = self.0;
        key.hash(&mut state);
        state.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first of SipHash-1-3's test vectors: key 00 01 … 0f, an empty message.
    #[test]
    fn siphash_1_3_is_the_published_one() {
        let key = |from: u8| u64::from_le_bytes(std::array::from_fn(|at| from + at as u8));
        let hasher = Sip(SipHasher13::new_with_keys(key(0), key(8)));
        assert_eq!(hasher.hash(&()), 0xabac_0158_050f_c4dc);
    }

    #[test]
    fn a_key_hashes_alike_in_one_hasher_and_otherwise_in_another() {
        for kind in [KeyHash::Fast, KeyHash::Sip] {
            let hasher = KeyHasher::random(kind);
            assert_eq!(hasher.hash(&7u64), hasher.clone().hash(&7u64));
            assert_ne!(hasher.hash(&7u64), hasher.hash(&8u64));
        }
        let sip = [KeyHasher::random(KeyHash::Sip), KeyHasher::random(KeyHash::Sip)];
        assert_ne!(sip[0].hash(&7u64), sip[1].hash(&7u64));
    }
}
