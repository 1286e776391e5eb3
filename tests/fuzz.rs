//! The fuzz targets for a moment: what they begin from, and changes of it.

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Changed inputs a target.
const INPUTS: usize = 20_000;

/// Bytes that mean something somewhere.
const SPICE: [&[u8]; 12] = [
    b"\"",
    b"[",
    b"{",
    b"\0",
    b"\xff",
    b"1e999",
    b"-0",
    b"urn:ngsi-ld:null",
    b"(",
    b"@",
    b"\\u0000",
    b"..",
];

fn changed(seeds: &[&str], random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let mut bytes = seeds[random(seeds.len())].as_bytes().to_vec();
    for _ in 0..=random(6) {
        let at = random(bytes.len() + 1);
        match random(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << random(8),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => drop(bytes.splice(at..at, SPICE[random(SPICE.len())].iter().copied())),
            4 => {
                let other = seeds[random(seeds.len())].as_bytes();
                let from = random(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let end = (at + random(20)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

#[test]
fn whatever_is_sent_is_read_or_refused() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    // What `cargo fuzz` begins from.
    let corpus = std::env::var_os("TANGGUL_FUZZ_SEEDS").map(std::path::PathBuf::from);
    for (name, target, seeds) in targets::TARGETS {
        for (n, seed) in seeds.iter().enumerate().filter(|_| corpus.is_some()) {
            let directory = corpus.clone().unwrap().join(name);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(format!("seed-{n}")), seed).unwrap();
        }
        seeds.iter().for_each(|seed| target(seed.as_bytes()));
        for _ in 0..INPUTS {
            let input = changed(seeds, &mut random);
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                panic!("target `{name}`: {:?}", String::from_utf8_lossy(&input));
            }
        }
    }
}
