//! Tiles: how the tree is cut into files (C2SP `tlog-tiles`).

use crate::Hash;

/// Hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileKind {
    /// Hashes of this level, counted in tiles: level 0 has leaf hashes.
    Hashes(u8),
    /// The leaves themselves.
    Entries,
}

/// Which tile: `tile/<level>/<index>[.p/<width>]` or `tile/entries/<index>[.p/<width>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilePath {
    pub kind: TileKind,
    pub index: u64,
    /// 1 to 256.
    pub width: u64,
}

impl TilePath {
    /// Reads a path; none when it is not exactly how the specification writes one.
    pub fn parse(path: &str) -> Option<TilePath> {
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(level.parse().ok().filter(|level| *level <= 7)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => {
                (index, width.parse().ok().filter(|w| (1..TILE_WIDTH).contains(w))?)
            }
            None => (rest, TILE_WIDTH),
        };
        let mut number = 0u64;
        for group in index.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let path_of = TilePath { kind, index: number, width };
        (path_of.to_string() == path).then_some(path_of)
    }

    /// The tiles that a log of `size` leaves consists of, entry bundles included.
    pub fn all(size: u64) -> Vec<TilePath> {
        let mut paths = Vec::new();
        let mut push = |kind, count: u64| {
            for index in 0..count.div_ceil(TILE_WIDTH) {
                let width = (count - index * TILE_WIDTH).min(TILE_WIDTH);
                paths.push(TilePath { kind, index, width });
            }
        };
        push(TileKind::Entries, size);
        let mut count = size;
        for level in 0..8 {
            if count == 0 {
                break;
            }
            push(TileKind::Hashes(level), count);
            count /= TILE_WIDTH;
        }
        paths
    }
}

impl std::fmt::Display for TilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            TileKind::Entries => f.write_str("tile/entries/")?,
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups[1..].iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// A bundle of leaves: each with its length as two big-endian bytes before it.
pub fn entries_bundle(leaves: &[Hash]) -> Vec<u8> {
    leaves.iter().flat_map(|leaf| [&[0, 32], leaf.as_slice()].concat()).collect()
}

/// The leaves of a bundle; none when a length is wrong or the bundle is cut.
pub fn read_entries_bundle(bytes: &[u8]) -> Option<Vec<Hash>> {
    let leaf = |chunk: &[u8]| match chunk {
        [0, 32, leaf @ ..] => leaf.try_into().ok(),
        _ => None,
    };
    bytes.chunks(34).map(leaf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |text: &str, kind, index, width| {
            let path = TilePath { kind, index, width };
            assert_eq!(path.to_string(), text);
            assert_eq!(TilePath::parse(text), Some(path));
        };
        check("tile/0/000", TileKind::Hashes(0), 0, 256);
        check("tile/entries/x001/x234/067.p/8", TileKind::Entries, 1_234_067, 8);
        for bad in [
            "tile/0/0",
            "tile/8/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/x000/001",
            "tile/x/000",
            "tile/0/001/000",
            "tile/0/000.p/08",
            "tile/0/000/",
            "0/000",
            "tile/64/000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(TilePath::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_log_has_just_these_tiles() {
        let names = |size| TilePath::all(size).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(names(0).is_empty());
        assert_eq!(names(1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
        assert_eq!(
            names(257),
            [
                "tile/entries/000",
                "tile/entries/001.p/1",
                "tile/0/000",
                "tile/0/001.p/1",
                "tile/1/000.p/1"
            ]
        );
    }

    #[test]
    fn bundles() {
        let leaves = [[1; 32], [2; 32]];
        let bundle = entries_bundle(&leaves);
        assert_eq!(read_entries_bundle(&bundle).unwrap(), leaves);
        assert_eq!(read_entries_bundle(&bundle[..67]), None);
    }
}
