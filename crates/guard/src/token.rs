//! Tokens and one-time codes: random, shown once, kept as digests.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Random bytes in a token.
pub const TOKEN_BYTES: usize = 32;

/// What a token is for; visible in its first letters, so that a leaked one is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Session,
    App,
    Device,
}

/// A token's text from random bytes.
pub fn new_token(kind: TokenKind, random: &[u8; TOKEN_BYTES]) -> String {
    let prefix = match kind {
        TokenKind::Session => "tgs_",
        TokenKind::App => "tga_",
        TokenKind::Device => "tgd_",
    };
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random))
}

/// A one-time code that can be read out on the telephone: 5 groups of 4, of 31 letters and digits
/// that are not mistaken for one another (99 bits).
pub fn new_code(random: &[u8; 20]) -> String {
    const LETTERS: &[u8; 31] = b"23456789ABCDEFGHJKMNPQRSTUVWXYZ";
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    let groups: Vec<String> =
        random.chunks(4).map(|group| group.iter().map(letter).collect()).collect();
    groups.join("-")
}

/// What is kept of a token or code. Random secrets of this length need no slow hash.
pub fn token_digest(token: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    digest.copy_from_slice(hash.as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!(new_token(TokenKind::App, &[0; 32]).len(), 4 + 43);
        assert_eq!(new_code(&[0; 20]), "2222-2222-2222-2222-2222");
        assert_eq!(new_code(&[30; 20]), "ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ");
        assert_eq!(new_code(&[31; 20]), "2222-2222-2222-2222-2222", "round again");
        assert_ne!(token_digest("a"), token_digest("b"));
    }
}
