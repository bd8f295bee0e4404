//! Offloads: the kernel's names, and four masks of bits over them.

/// Bytes of a name, zero bytes included (`ETH_GSTRING_LEN`).
pub(super) const NAME_BYTES: usize = 32;

/// Words of a block: what can be changed at all, what is wished for, what is in force, what never changes.
pub(super) const BLOCK_WORDS: usize = 4;

/// An offload, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// As the kernel spells it: `rx-gro`.
    pub name: String,
    /// Whether it is in force.
    pub active: bool,
    /// Whether this driver lets it be changed.
    pub changeable: bool,
}

/// All offloads that the kernel knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(Vec<Feature>);

impl Features {
    /// The feature of this name; `None` where the kernel does not know it.
    pub fn get(&self, name: &str) -> Option<&Feature> {
        self.0.iter().find(|feature| feature.name == name)
    }

    /// Whether it is known and in force.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|feature| feature.active)
    }

    /// From what `ETHTOOL_GSTRINGS` and `ETHTOOL_GFEATURES` gave: names one after the other, and blocks of four words for
    /// 32 names each. Names without a block are left out.
    pub(super) fn from_wire(names: &[u8], blocks: &[u32]) -> Self {
        let (names, _) = names.as_chunks::<NAME_BYTES>();
        let (blocks, _) = blocks.as_chunks::<BLOCK_WORDS>();
        let features = names.iter().enumerate().filter_map(|(bit, name)| {
            let [available, _, active, never_changed] = *blocks.get(bit / 32)?;
            let is_set = |mask: u32| mask >> (bit % 32) & 1 == 1;
            let name = name.split(|&byte| byte == 0).next().filter(|name| !name.is_empty())?;
            Some(Feature {
                name: String::from_utf8_lossy(name).into_owned(),
                active: is_set(active),
                changeable: is_set(available) && !is_set(never_changed),
            })
        });
        Self(features.collect())
    }

    /// The bit of a name among the kernel's names.
    pub(super) fn bit(names: &[u8], name: &str) -> Option<usize> {
        let (names, _) = names.as_chunks::<NAME_BYTES>();
        names
            .iter()
            .position(|known| known.split(|&byte| byte == 0).next() == Some(name.as_bytes()))
    }
}

/// From pairs of a name and whether it is in force, all of them changeable: for what is pure and has tests.
#[cfg(test)]
impl<'a> FromIterator<(&'a str, bool)> for Features {
    fn from_iter<I: IntoIterator<Item = (&'a str, bool)>>(pairs: I) -> Self {
        let one = |(name, active): (&str, bool)| Feature {
            name: name.to_owned(),
            active,
            changeable: true,
        };
        Self(pairs.into_iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in of {
            bytes.extend(name.bytes());
            bytes.resize(bytes.len().next_multiple_of(NAME_BYTES), 0);
        }
        bytes
    }

    #[test]
    fn a_bit_is_the_feature_of_its_place_also_in_the_second_block() {
        let mut all: Vec<String> = (0..33).map(|bit| format!("f{bit}")).collect();
        all[32] = "rx-gro-hw".to_owned();
        let names = names(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let blocks = [0b110, 0, 0b010, 0b100, 1, 0, 1, 0];
        let features = Features::from_wire(&names, &blocks);
        assert!(features.is_on("f1") && !features.is_on("f0"));
        assert!(features.get("f1").unwrap().changeable);
        assert!(!features.get("f2").unwrap().changeable, "it never changes");
        assert!(features.is_on("rx-gro-hw"));
        assert_eq!(Features::bit(&names, "rx-gro-hw"), Some(32));
        assert_eq!(Features::bit(&names, "rx-gro"), None);
    }

    #[test]
    fn names_without_a_block_or_without_a_letter_are_left_out() {
        let names = [names(&["a", "b"]), vec![0; NAME_BYTES], vec![b'x'; NAME_BYTES - 1]].concat();
        assert_eq!(Features::from_wire(&names, &[0; 3]), Features::default());
        assert_eq!(Features::from_wire(&names, &[0; 4]).0.len(), 2);
    }
}
