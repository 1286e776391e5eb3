//! Passwords (NIST SP 800-63B-4 clause 3.1.1): argon2id, long, not common, no composition rules.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};

/// Fewest characters of a password that stands alone.
pub const MIN_PASSWORD_CHARS: usize = 15;
/// Most bytes of a password.
pub const MAX_PASSWORD_BYTES: usize = 512;

/// Words that make a password guessable, however often they are repeated.
const COMMON: [&str; 24] = [
    "password",
    "katasandi",
    "sandi",
    "rahasia",
    "admin",
    "administrator",
    "123456789",
    "12345678",
    "qwerty",
    "qwertyuiop",
    "indonesia",
    "bandung",
    "jakarta",
    "tanggul",
    "letmein",
    "welcome",
    "selamat",
    "sayang",
    "bismillah",
    "iloveyou",
    "merdeka",
    "garuda",
    "asdfghjkl",
    "111111",
];

/// Why a new password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error(
        "the password has fewer than {MIN_PASSWORD_CHARS} characters; four or five words do well"
    )]
    Short,
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    Long,
    #[error(
        "the password is made of a common word, the login or a repetition; take several unrelated words"
    )]
    Common,
    #[error("the password cannot be hashed")]
    Hash,
}

/// Checks a new password.
///
/// # Errors
/// When it is too short, too long or too common.
pub fn check_new_password(password: &str, login: &str) -> Result<(), PasswordError> {
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return Err(PasswordError::Short);
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::Long);
    }
    let mut rest = password.to_lowercase();
    rest.retain(char::is_alphanumeric);
    let mut own = login.to_lowercase();
    own.retain(char::is_alphanumeric);
    for word in COMMON.iter().copied().chain([own.as_str()]).filter(|word| !word.is_empty()) {
        rest = rest.replace(word, "");
    }
    let distinct: std::collections::HashSet<char> = rest.chars().collect();
    if distinct.len() < 5 { Err(PasswordError::Common) } else { Ok(()) }
}

/// 19 MiB, two passes, one lane: the second choice of OWASP, and the library's own; a test pins them.
fn hasher() -> Argon2<'static> {
    Argon2::default()
}

/// Hashes a password with a salt of 16 random bytes.
///
/// # Errors
/// When the library refuses, which sound parameters never make it do.
pub fn hash_password(password: &str, salt: &[u8; 16]) -> Result<String, PasswordError> {
    let salt = SaltString::encode_b64(salt).map_err(|_| PasswordError::Hash)?;
    let hash = hasher().hash_password(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|_| PasswordError::Hash)
}

/// Whether the password has this hash. Takes as long for an account that does not exist: then
/// `hash` is none.
pub fn verify_password(password: &str, hash: Option<&str>) -> bool {
    // The hash of a random password, with the parameters above.
    const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    if password.len() > MAX_PASSWORD_BYTES {
        return false;
    }
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(NOBODY)) else { return false };
    hasher().verify_password(password.as_bytes(), &parsed).is_ok() && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_passwords() {
        assert_eq!(check_new_password("pendek", "siti"), Err(PasswordError::Short));
        assert_eq!(check_new_password("passwordpassword1", "siti"), Err(PasswordError::Common));
        assert_eq!(check_new_password("aaaaaaaaaaaaaaaaaaaaa", "siti"), Err(PasswordError::Common));
        assert_eq!(
            check_new_password("siti.wulandari siti.wulandari", "siti.wulandari"),
            Err(PasswordError::Common)
        );
        assert_eq!(
            check_new_password(&"kuda lumping ".repeat(60), "siti"),
            Err(PasswordError::Long)
        );
        assert_eq!(check_new_password("kuda meja awan tujuh", "siti"), Ok(()));
    }

    #[test]
    fn lengths_are_exact() {
        let of = |count: usize| "abcdefghijklmnopqrstuvwxyz".chars().cycle().take(count).collect();
        let check = |password: String| check_new_password(&password, "siti");
        assert_eq!(check(of(MIN_PASSWORD_CHARS)), Ok(()));
        assert_eq!(check(of(MIN_PASSWORD_CHARS - 1)), Err(PasswordError::Short));
        assert_eq!(check(of(MAX_PASSWORD_BYTES)), Ok(()));
        assert_eq!(check(of(MAX_PASSWORD_BYTES + 1)), Err(PasswordError::Long));
        assert_eq!(check("vwxyzvwxyzvwxyz".into()), Ok(()), "five different ones");
        assert_eq!(check("vwxyvwxyvwxyvwxy".into()), Err(PasswordError::Common), "four");
        for (count, fits) in [(MAX_PASSWORD_BYTES, true), (MAX_PASSWORD_BYTES + 1, false)] {
            let password: String = of(count);
            let hash = hash_password(&password, &[1; 16]).unwrap();
            assert_eq!(verify_password(&password, Some(&hash)), fits, "{count}");
        }
    }

    #[test]
    fn only_the_right_password_fits() {
        let hash = hash_password("kuda meja awan tujuh", &[1; 16]).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify_password("kuda meja awan tujuh", Some(&hash)));
        assert!(!verify_password("kuda meja awan delapan", Some(&hash)));
        assert!(!verify_password("kuda meja awan tujuh", None));
    }
}
