//! Receive-side scaling as a NIC has it: a key, a function, and a table from hashes to queues.

/// A NIC's `struct ethtool_rxfh`, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// Queue by the low bits of the hash.
    pub table: Vec<u32>,
    /// The key; empty where the driver does not tell it.
    pub key: Vec<u8>,
    /// The hash function: one bit of `ETH_RSS_HASH_…`; 0 where the driver does not tell.
    pub function: u8,
    /// What is done to addresses and ports before they are hashed (`RXH_XFRM_…`).
    pub transform: u8,
}

impl Rss {
    /// `ETH_RSS_HASH_TOP`.
    pub const TOEPLITZ: u8 = 1;

    /// Whether both directions of a flow have the same hash, whatever the flow: the key repeats every 16 bits, or the NIC
    /// makes source and destination alike before it hashes.
    pub fn is_symmetric(&self) -> bool {
        if self.transform != 0 {
            return true;
        }
        let repeats = self.key.len() >= 4
            && self.key.iter().zip(&self.key[2..]).all(|(byte, later)| byte == later);
        repeats && matches!(self.function, Self::TOEPLITZ | 0)
    }

    /// Whether the table gives each of `queues` queues its share: no two differ by more than one entry.
    pub fn is_even(&self, queues: u32) -> bool {
        if queues as usize > self.table.len() {
            return false;
        }
        let mut shares = vec![0usize; queues as usize];
        for &queue in &self.table {
            match shares.get_mut(queue as usize) {
                Some(share) => *share += 1,
                None => return false,
            }
        }
        let (least, most) = (shares.iter().min(), shares.iter().max());
        most.zip(least).is_none_or(|(most, least)| most - least <= 1)
    }

    /// Queues that the table names.
    pub fn queues_used(&self) -> usize {
        let mut used = self.table.clone();
        used.sort_unstable();
        used.dedup();
        used.len()
    }
}

/// The table that drivers start with: `entries` entries, queues in turn.
pub fn round_robin(entries: usize, queues: u32) -> Vec<u32> {
    (0..entries as u32).map(|entry| entry % queues.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rss(key: &[u8]) -> Rss {
        Rss { table: round_robin(128, 4), key: key.to_vec(), function: 1, transform: 0 }
    }

    #[test]
    fn a_key_is_symmetric_when_it_repeats_every_two_bytes() {
        assert!(rss(&[0x6d, 0x5a].repeat(26)).is_symmetric());
        assert!(rss(&[0; 40]).is_symmetric());
        let mut key = [0x6d, 0x5a].repeat(20);
        key[39] ^= 1;
        assert!(!rss(&key).is_symmetric());
        assert!(!rss(&[]).is_symmetric(), "a key that is not told is none to rely on");
        assert!(!Rss { function: 2, ..rss(&[0x6d, 0x5a].repeat(20)) }.is_symmetric());
        assert!(Rss { transform: 1, ..rss(&key) }.is_symmetric());
    }

    #[test]
    fn a_table_is_even_when_no_queue_has_two_entries_more_than_another() {
        assert!(rss(&[]).is_even(4));
        assert!(Rss { table: round_robin(128, 3), ..rss(&[]) }.is_even(3));
        assert!(!rss(&[]).is_even(5), "a queue without an entry");
        assert!(!rss(&[]).is_even(3), "an entry without a queue");
        let mut table = round_robin(128, 4);
        table[0] = 1;
        let skewed = Rss { table, ..rss(&[]) };
        assert!(!skewed.is_even(4));
        assert_eq!(skewed.queues_used(), 4);
    }
}
