//! A digest of a set that does not ask in which order it came together.

use crate::Hash;

/// The sum of the keyed digests of a set's members, modulo 2^256: MSet-Add-Hash (Clarke et al.,
/// ASIACRYPT 2003). Members come and go at the cost of one addition. Whoever has the key of no
/// member's digest finds no other set with the same sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MultisetHash([u64; 4]);

fn limbs(digest: &Hash) -> [u64; 4] {
    let (words, _) = digest.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_le_bytes(words[at]))
}

impl MultisetHash {
    /// Takes a member in.
    pub fn add(&mut self, digest: &Hash) {
        let mut carry = false;
        for (limb, more) in self.0.iter_mut().zip(limbs(digest)) {
            (*limb, carry) = limb.carrying_add(more, carry);
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, digest: &Hash) {
        let mut borrow = false;
        for (limb, less) in self.0.iter_mut().zip(limbs(digest)) {
            (*limb, borrow) = limb.borrowing_sub(less, borrow);
        }
    }

    /// As 32 bytes, the least first.
    pub fn to_bytes(self) -> Hash {
        let mut bytes = [0; 32];
        for (part, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            part.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// From what [`MultisetHash::to_bytes`] made.
    pub fn from_bytes(bytes: &Hash) -> MultisetHash {
        MultisetHash(limbs(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_what_came_can_go() {
        let members: Vec<Hash> = (0..9u8).map(|n| crate::sha256(&[&[n]])).collect();
        let sum = |members: &mut dyn Iterator<Item = &Hash>| {
            let mut sum = MultisetHash::default();
            members.for_each(|member| sum.add(member));
            sum
        };
        let all = sum(&mut members.iter());
        assert_eq!(all, sum(&mut members.iter().rev()));
        let mut fewer = all;
        fewer.remove(&members[4]);
        assert_ne!(fewer, all);
        assert_eq!(fewer, sum(&mut members.iter().filter(|member| **member != members[4])));
        fewer.add(&members[3]);
        assert_ne!(fewer, all, "twice the same is not another");
        assert_eq!(MultisetHash::from_bytes(&all.to_bytes()), all);
    }

    #[test]
    fn carries_go_all_the_way() {
        let (mut sum, mut one) = (MultisetHash([u64::MAX; 4]), [0; 32]);
        one[0] = 1;
        sum.add(&one);
        assert_eq!(sum, MultisetHash::default());
        sum.remove(&one);
        assert_eq!(sum.to_bytes(), [0xff; 32]);
    }
}
