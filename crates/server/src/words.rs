//! What the hub says, in the reader's language: English, and Bahasa Indonesia by the table beside it.

use axum::http::{HeaderMap, header};
use std::collections::HashMap;
use std::sync::LazyLock;

/// A language the hub speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    English,
    Indonesian,
}

impl Language {
    /// BCP 47.
    pub fn tag(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::Indonesian => "id",
        }
    }

    /// The language that goes by a tag.
    pub fn called(tag: &str) -> Option<Language> {
        match tag.split('-').next().unwrap_or_default() {
            "en" => Some(Language::English),
            "id" | "in" | "ms" => Some(Language::Indonesian),
            _ => None,
        }
    }

    /// What the reader likes best of what there is (RFC 9110, clause 12.5.4).
    pub fn of(headers: &HeaderMap) -> Language {
        let wanted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let mut best = (Language::English, 0.0);
        for item in wanted.unwrap_or_default().split(',') {
            let (tag, weight) = item.split_once(";q=").unwrap_or((item, "1"));
            let weight: f32 = weight.trim().parse().unwrap_or(0.0);
            match Language::called(&tag.trim().to_ascii_lowercase()) {
                Some(language) if weight > best.1 => best = (language, weight),
                _ => {}
            }
        }
        best.0
    }
}

/// Sentences with `{}` for what differs, and the same in Bahasa Indonesia.
const TABLE: &str = include_str!("indonesian.tsv");
/// Longest text that is looked for in the table.
const MAX_SAID: usize = 4_096;

struct Sentence {
    parts: Vec<&'static str>,
    indonesian: &'static str,
}

struct Sentences {
    exact: HashMap<&'static str, &'static str>,
    /// Those with holes, the most telling first.
    open: Vec<Sentence>,
}

static SENTENCES: LazyLock<Sentences> = LazyLock::new(|| {
    let rows = TABLE.lines().filter_map(|line| line.split_once('\t'));
    let (open, exact): (Vec<_>, Vec<_>) = rows.partition(|(english, _)| english.contains("{}"));
    let mut open: Vec<_> = open
        .into_iter()
        .map(|(english, indonesian)| Sentence { parts: english.split("{}").collect(), indonesian })
        .collect();
    let told = |sentence: &Sentence| sentence.parts.iter().map(|part| part.len()).sum::<usize>();
    open.sort_by_key(|sentence| std::cmp::Reverse(told(sentence)));
    Sentences { exact: exact.into_iter().collect(), open }
});

/// What fills the holes of a sentence, if the text is that sentence.
fn holes<'a>(parts: &[&str], text: &'a str) -> Option<Vec<&'a str>> {
    let (first, rest) = parts.split_first()?;
    let mut left = text.strip_prefix(first)?;
    let mut found = Vec::new();
    for (index, part) in rest.iter().enumerate() {
        let last = index + 1 == rest.len();
        let at = match (last, part.is_empty()) {
            (true, true) => left.len(),
            (true, false) => left.len().checked_sub(part.len()).filter(|_| left.ends_with(part))?,
            (false, true) => return None,
            (false, false) => left.find(part)?,
        };
        found.push(&left[..at]);
        left = &left[at + part.len()..];
    }
    left.is_empty().then_some(found)
}

fn whole(text: &str, depth: usize) -> Option<String> {
    if let Some(found) = SENTENCES.exact.get(text) {
        return Some((*found).to_owned());
    }
    SENTENCES.open.iter().find_map(|sentence| {
        let found = holes(&sentence.parts, text)?;
        let mut said = String::new();
        let mut filled = found.iter();
        for (index, part) in sentence.indonesian.split("{}").enumerate() {
            if index > 0 {
                let hole = filled.next().copied().unwrap_or_default();
                said.push_str(&part_said(hole, depth + 1));
            }
            said.push_str(part);
        }
        Some(said)
    })
}

fn part_said(text: &str, depth: usize) -> String {
    if depth > 4 || text.is_empty() {
        return text.to_owned();
    }
    if let Some(said) = whole(text, depth) {
        return said;
    }
    // Several sentences in one.
    if text.contains("; ") {
        return text
            .split("; ")
            .map(|part| part_said(part, depth + 1))
            .collect::<Vec<_>>()
            .join("; ");
    }
    text.to_owned()
}

/// A sentence of the hub's in a language; as it is where the table does not have it.
pub fn say(text: &str, language: Language) -> String {
    match language {
        Language::Indonesian if text.len() <= MAX_SAID => part_said(text, 0),
        _ => text.to_owned(),
    }
}

/// A line that tells who gains or loses what, such as `` siti for flood-response: `need` ``.
pub fn say_effect(line: &str, language: Language) -> String {
    let (Language::Indonesian, Some((who, what))) = (language, line.split_once(": ")) else {
        return line.to_owned();
    };
    let said: Vec<String> = what.split(", ").map(|one| say(one, language)).collect();
    format!("{}: {}", say(who, language), said.join(", "))
}

/// Title of a problem, and what to do next.
pub fn of_problem(
    kind: &str,
    status: u16,
    language: Language,
) -> Option<(&'static str, &'static str)> {
    let (english, indonesian) = PROBLEMS.iter().find(|(word, ..)| *word == kind).map_or_else(
        || {
            let class = PROBLEMS.iter().find(|(word, ..)| *word == status.to_string());
            class.map(|(_, english, indonesian)| (english, indonesian))
        },
        |(_, english, indonesian)| Some((english, indonesian)),
    )?;
    Some(if language == Language::English { *english } else { *indonesian })
}

type Told = (&'static str, &'static str);

/// By the last word of a problem's type: title and remedy in English, and in Bahasa Indonesia.
const PROBLEMS: &[(&str, Told, Told)] = &[
    (
        "unauthenticated",
        ("A credential is needed", "Sign in, or send a token that is valid."),
        ("Perlu kredensial", "Masuklah, atau kirim token yang masih berlaku."),
    ),
    (
        "forbidden",
        ("Not permitted", "Declare a purpose that would do, or ask the one who can grant it."),
        (
            "Tidak diizinkan",
            "Nyatakan tujuan yang memenuhi syarat, atau mintalah kepada yang dapat memberi izin.",
        ),
    ),
    (
        "partial-sight",
        ("Not permitted", "Change the attributes you see, one by one."),
        ("Tidak diizinkan", "Ubahlah atribut yang Anda lihat, satu per satu."),
    ),
    (
        "ResourceNotFound",
        ("Not found", "Check the address or the identifier."),
        ("Tidak ditemukan", "Periksa alamat atau pengenalnya."),
    ),
    (
        "NonexistentTenant",
        ("No such tenant", "Leave the tenant out."),
        ("Penyewa tidak ada", "Hilangkan nama penyewa."),
    ),
    (
        "OperationNotSupported",
        ("Not offered", "Use what the API document lists."),
        ("Tidak disediakan", "Gunakan yang tercantum dalam dokumen API."),
    ),
    (
        "method-not-allowed",
        ("Method not allowed", "Use a method that the API document lists."),
        ("Metode tidak diizinkan", "Gunakan metode yang tercantum dalam dokumen API."),
    ),
    (
        "unsupported-media-type",
        ("Unsupported media type", "Send JSON, and say so in Content-Type."),
        ("Jenis media tidak didukung", "Kirim JSON, dan sebutkan dalam Content-Type."),
    ),
    (
        "not-acceptable",
        ("Not acceptable", "Accept one of the media types named."),
        ("Tidak dapat diterima", "Terimalah salah satu jenis media yang disebut."),
    ),
    (
        "RequestEntityTooLarge",
        ("Too large", "Send it in smaller parts."),
        ("Terlalu besar", "Kirimlah dalam bagian yang lebih kecil."),
    ),
    (
        "head-too-large",
        ("Too large", "Send fewer or shorter headers."),
        ("Terlalu besar", "Kirimlah header yang lebih sedikit atau lebih pendek."),
    ),
    (
        "timeout",
        ("Too slow", "Send it again, over a better connection."),
        ("Terlalu lambat", "Kirim lagi dengan sambungan yang lebih baik."),
    ),
    (
        "InvalidRequest",
        ("Malformed request", "Mend the place that is named, and send it again."),
        ("Permintaan cacat", "Perbaiki tempat yang disebut, lalu kirim lagi."),
    ),
    (
        "BadRequestData",
        ("Data that does not fit", "Mend the place that is named, and send it again."),
        ("Data tidak sesuai", "Perbaiki tempat yang disebut, lalu kirim lagi."),
    ),
    (
        "AlreadyExists",
        ("Already exists", "Change the one that is there, or take another identifier."),
        ("Sudah ada", "Ubahlah yang sudah ada, atau pakai pengenal lain."),
    ),
    (
        "conflict",
        ("Conflict", "Look at how things are now, and try again."),
        ("Bertentangan", "Lihat keadaannya sekarang, lalu coba lagi."),
    ),
    (
        "limit",
        ("A limit was reached", "Do as is said, or ask whoever runs the hub to raise the limit."),
        ("Batas tercapai", "Lakukan yang disarankan, atau minta pengelola hub menaikkan batasnya."),
    ),
    (
        "throttled",
        ("Too many tries", "Wait as long as is said, then try again."),
        ("Terlalu banyak percobaan", "Tunggu selama yang disebut, lalu coba lagi."),
    ),
    (
        "LdContextNotAvailable",
        ("A context is not known here", "Ask whoever runs the hub to add it to the configuration."),
        ("Konteks tidak dikenal di sini", "Minta pengelola hub menambahkannya ke konfigurasi."),
    ),
    (
        "sealed",
        ("Sealed", "Ask the custodians to open the sensitive root; what you sent is kept."),
        (
            "Tersegel",
            "Minta para pemegang kunci membuka akar sensitif; yang Anda kirim tetap disimpan.",
        ),
    ),
    (
        "disk-full",
        (
            "The disk is full",
            "Tell whoever runs the hub: reading goes on, writing waits for space.",
        ),
        (
            "Diska penuh",
            "Beri tahu pengelola hub: membaca tetap bisa, menulis menunggu ruang kosong.",
        ),
    ),
    (
        "storage",
        ("The store cannot do this now", "Tell whoever runs the hub, and try again later."),
        ("Penyimpanan belum dapat melakukannya", "Beri tahu pengelola hub, dan coba lagi nanti."),
    ),
    (
        "broken",
        ("The hub failed", "Look whether it was done before you send it again."),
        ("Hub gagal", "Lihat dahulu apakah sudah terlaksana sebelum mengirim lagi."),
    ),
    (
        "stopping",
        ("The hub is stopping", "Try again in a minute."),
        ("Hub sedang berhenti", "Coba lagi sebentar lagi."),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_gets_the_language_he_likes_best() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_LANGUAGE, text.parse().unwrap());
            Language::of(&headers)
        };
        assert_eq!(of("id-ID,id;q=0.9,en;q=0.8"), Language::Indonesian);
        assert_eq!(of("en-GB,en;q=0.9,id;q=0.8"), Language::English);
        assert_eq!(of("fr, id;q=0.2"), Language::Indonesian);
        assert_eq!(of("fr"), Language::English);
        assert_eq!(of(",;q=,;q=x"), Language::English);
    }

    #[test]
    fn sentences_are_said_with_what_fills_them() {
        let said = say(
            "not permitted to read dataset `evacuation` without a declared purpose; it would be for: flood-response; who could grant it: steward.social",
            Language::Indonesian,
        );
        assert!(said.contains("`evacuation`") && said.contains("steward.social"), "{said}");
        assert!(!said.contains("not permitted") && !said.contains("grant"), "{said}");
        assert_eq!(say("at `/x`: is missing", Language::Indonesian), "pada `/x`: tidak ada");
        assert_eq!(say("nobody knows this", Language::Indonesian), "nobody knows this");
        assert_eq!(say("at `/x`: is missing", Language::English), "at `/x`: is missing");
    }

    #[test]
    fn every_row_has_as_many_holes_on_both_sides() {
        for line in TABLE.lines() {
            let (english, indonesian) = line.split_once('\t').unwrap_or_else(|| panic!("{line}"));
            let holes = |text: &str| text.matches("{}").count();
            assert_eq!(holes(english), holes(indonesian), "{line}");
        }
    }

    /// Texts in the sources that the hub may say to somebody.
    fn said_in(source: &str) -> Vec<String> {
        const STARTS: [&str; 10] = [
            "#[error(",
            "Invalid::data(",
            "Invalid::request(",
            "HubError::Conflict(",
            "HubError::NotFound(",
            "HubError::Unauthenticated(",
            "HubError::NotOffered(",
            "let what =",
            "remedy: ",
            "let title =",
        ];
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let mut found = Vec::new();
        for start in STARTS {
            for (at, _) in source.match_indices(start) {
                let rest = &source[at + start.len()..];
                let end = rest.find([';', '}']).map_or(rest.len(), |_| rest.len());
                found.extend(literals(&rest[..end], start.ends_with('(')));
            }
        }
        found
    }

    /// The literals of one call or statement.
    fn literals(text: &str, call: bool) -> Vec<String> {
        let (mut found, mut depth, mut chars) = (Vec::new(), i32::from(call), text.chars());
        while let Some(c) = chars.next() {
            match c {
                '"' => {
                    let mut literal = String::new();
                    while let Some(c) = chars.next() {
                        match c {
                            '"' => break,
                            '\\' => match chars.next() {
                                Some('\n') => {
                                    let rest = chars.as_str().trim_start();
                                    chars = rest.chars();
                                }
                                Some(escaped) => literal.push(escaped),
                                None => break,
                            },
                            c => literal.push(c),
                        }
                    }
                    found.push(literal);
                }
                '(' | '{' | '[' => depth += 1,
                ')' | '}' | ']' => depth -= 1,
                ';' => break,
                ',' if !call && depth == 0 => break,
                _ => {}
            }
            if call && depth == 0 || depth < 0 {
                break;
            }
        }
        found
    }

    /// `{name}` and `{0}` as `{}`.
    fn template(literal: &str) -> String {
        let mut out = String::new();
        let mut rest = literal;
        while let Some(at) = rest.find('{') {
            let end = rest[at..].find('}').map_or(rest.len(), |end| at + end + 1);
            out.push_str(&rest[..at]);
            out.push_str("{}");
            rest = &rest[end..];
        }
        out + rest
    }

    #[test]
    fn everything_the_hub_says_is_in_the_table() {
        let crates = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let known: std::collections::HashSet<&str> =
            TABLE.lines().filter_map(|line| line.split_once('\t')).map(|(key, _)| key).collect();
        let mut missing = Vec::new();
        let mut seen = 0;
        for name in ["model", "ngsild", "guard", "hub", "server"] {
            let mut waiting = vec![std::path::PathBuf::from(format!("{crates}/{name}/src"))];
            while let Some(path) = waiting.pop() {
                if path.is_dir() {
                    waiting.extend(
                        std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()),
                    );
                    continue;
                }
                let shown = path.display().to_string();
                if !shown.ends_with(".rs")
                    || shown.contains("/tests")
                    || ["verify.rs", "public.rs"].iter().any(|own| shown.ends_with(own))
                {
                    continue;
                }
                for literal in said_in(&std::fs::read_to_string(&path).unwrap()) {
                    let sentence = template(&literal);
                    let word = sentence.trim_matches(|c: char| !c.is_alphabetic());
                    if word.contains(' ') {
                        seen += 1;
                        if !known.contains(sentence.as_str()) {
                            missing.push(format!("{name}: {sentence}"));
                        }
                    }
                }
            }
        }
        missing.sort();
        missing.dedup();
        assert!(seen > 150, "only {seen} sentences were found");
        assert!(missing.is_empty(), "not in indonesian.tsv:\n{}", missing.join("\n"));
        for title in include_str!("../../guard/src/default.cedar").lines() {
            let Some(title) = title.strip_prefix("@title(\"") else { continue };
            let title = title.trim_end_matches("\")");
            assert!(known.contains(title), "not in indonesian.tsv: {title}");
        }
    }
}
