//! Pages for citizens: rendered here, in two languages, no script needed, each under 50 KB.

use crate::app::App;
use crate::call::Call;
use crate::params::Params;
use crate::problem::Problem;
use crate::words::{Language, say};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse, Response};
use journal::{Receipt, VerifyingKey};
use model::{Dataset, Publication, Sensitivity};
use std::fmt::Write;
use std::sync::Arc;

/// The console's colours and type, so that a citizen sees the same house as an official.
const STYLE: &str = include_str!("public.css");
/// Datasets on one page.
const MAX_DATASETS: usize = 60;

pub async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, STYLE).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A page in the reader's language.
struct Page {
    language: Language,
    here: &'static str,
    body: String,
}

impl Page {
    fn new(here: &'static str, headers: &HeaderMap, query: Option<&str>) -> Page {
        let params = Params::parse(query.unwrap_or_default()).unwrap_or_default();
        let chosen = params.get("lang").and_then(Language::called);
        let language = chosen.unwrap_or_else(|| Language::of(headers));
        Page { language, here, body: String::new() }
    }

    fn say(&self, english: &'static str, indonesian: &'static str) -> &'static str {
        match self.language {
            Language::English => english,
            Language::Indonesian => indonesian,
        }
    }

    fn add(&mut self, html: impl std::fmt::Display) {
        // Writing into a string cannot fail.
        let _ = write!(self.body, "{html}");
    }

    /// A number as the language writes it.
    fn number(&self, number: u64) -> String {
        let digits = number.to_string();
        let mark = if self.language == Language::English { ',' } else { '.' };
        let mut out = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                out.push(mark);
            }
            out.push(digit);
        }
        out
    }

    fn finish(self, app: &App, title: &str) -> Html<String> {
        let tag = self.language.tag();
        let link = |path: &str, text: &str| {
            let current = if path == self.here { " aria-current=\"page\"" } else { "" };
            format!("<a href=\"{path}?lang={tag}\"{current}>{text}</a>")
        };
        let notice = app.hub.notice().map_or_else(String::new, |notice| {
            format!("<p class=\"note\">{}</p>", escape(&say(notice, self.language)))
        });
        let other = |tag: &str, name: &str, language| {
            let current = if self.language == language { " aria-current=\"true\"" } else { "" };
            format!("<a href=\"?lang={tag}\" lang=\"{tag}\" hreflang=\"{tag}\"{current}>{name}</a>")
        };
        Html(format!(
            "<!doctype html><html lang=\"{tag}\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width,initial-scale=1\"><title>{} – Tanggul</title>\
             <link rel=\"stylesheet\" href=\"/public/style.css\"></head><body><a class=\"skip\" href=\"#main\">{}</a>\
             <header><strong>Tanggul</strong><nav aria-label=\"{}\">{}{}{}</nav><nav aria-label=\"{}\">{}{}</nav>{notice}</header>\
             <main id=\"main\"><h1>{}</h1>{}</main><footer><p>{}</p></footer></body></html>",
            escape(title),
            self.say("Skip to content", "Langsung ke isi"),
            self.say("Pages", "Halaman"),
            link("/public/", self.say("What is sensed", "Yang dipantau")),
            link("/public/log", self.say("The log", "Catatan kerja")),
            link("/public/receipt", self.say("Check a receipt", "Periksa tanda terima")),
            self.say("Language", "Bahasa"),
            other("en", "English", Language::English),
            other("id", "Bahasa Indonesia", Language::Indonesian),
            escape(title),
            self.body,
            self.say(
                "This page uses no script and no cookie, and loads nothing from anywhere else.",
                "Halaman ini tidak memakai skrip atau kuki, dan tidak memuat apa pun dari tempat lain.",
            ),
        ))
    }
}

fn sensitivity(page: &Page, level: Sensitivity) -> &'static str {
    match level {
        Sensitivity::Open => page.say("open", "terbuka"),
        Sensitivity::Internal => page.say("internal", "internal"),
        Sensitivity::Confidential => page.say("confidential", "rahasia"),
        Sensitivity::Personal => page.say("personal", "pribadi"),
        Sensitivity::Special => page.say("special", "sangat pribadi"),
    }
}

fn is_open(dataset: &Dataset) -> bool {
    dataset.publication == Publication::Open
}

/// What is sensed in the city, and why.
pub async fn home(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Html<String> {
    let mut page = Page::new("/public/", &headers, query.as_deref());
    page.add(format_args!(
        "<p class=\"lead\">{}</p><div class=\"wide\"><table><caption>{}</caption><thead><tr>",
        page.say(
            "What this city senses, for what, by what right, and who answers for it.",
            "Apa yang dipantau kota ini, untuk apa, dengan dasar apa, dan siapa penanggung jawabnya.",
        ),
        page.say("Datasets", "Himpunan data"),
    ));
    for heading in [
        page.say("Dataset", "Himpunan data"),
        page.say("Department", "Dinas"),
        page.say("For what", "Untuk apa"),
        page.say("Legal basis", "Dasar hukum"),
        page.say("Things", "Jumlah"),
        page.say("Published", "Diterbitkan"),
    ] {
        page.add(format_args!("<th scope=\"col\">{heading}</th>"));
    }
    page.add("</tr></thead><tbody>");
    let purposes = app.hub.purposes();
    for (dataset, count) in app.hub.datasets().into_iter().take(MAX_DATASETS) {
        let for_what: Vec<String> = dataset
            .purposes
            .iter()
            .map(|id| purposes.iter().find(|p| p.id == *id).map_or(id.clone(), |p| p.title.clone()))
            .map(|title| escape(&title))
            .collect();
        let count = if dataset.about_people {
            page.say("not told", "tidak diberitahukan").to_owned()
        } else {
            page.number(count)
        };
        page.add(format_args!(
            "<tr><th scope=\"row\"><a href=\"/public/datasets/{id}?lang={}\">{}</a><br><code>{id}</code></th>\
             <td>{}</td><td>{}</td><td>{}</td><td class=\"number\">{count}</td><td>{}</td></tr>",
            page.language.tag(),
            escape(&dataset.title),
            escape(&dataset.department),
            for_what.join("; "),
            escape(&dataset.legal_basis),
            if is_open(&dataset) { page.say("yes", "ya") } else { page.say("no", "tidak") },
            id = escape(&dataset.id),
        ));
    }
    page.add("</tbody></table></div>");
    let title = page.say("What is sensed in the city", "Yang dipantau di kota");
    page.finish(&app, title)
}

/// One dataset: what is kept, how it is protected, and where it is published, how to get it.
pub async fn dataset(call: Call) -> Result<Html<String>, Problem> {
    let id = call.path("id");
    let all = call.app.hub.datasets();
    let found = all.into_iter().find(|(dataset, _)| dataset.id == id);
    let (dataset, _) =
        found.ok_or_else(|| Problem::not_found(format!("there is no dataset `{id}`")))?;
    let mut page = Page::new("", &call.headers, call.uri.query());
    let days = dataset.retention_days.map_or_else(
        || page.say("without end", "tanpa batas").to_owned(),
        |days| format!("{} {}", page.number(u64::from(days)), page.say("days", "hari")),
    );
    page.add("<dl>");
    for (name, value) in [
        (page.say("Department", "Dinas"), escape(&dataset.department)),
        (page.say("Purposes", "Tujuan"), escape(&dataset.purposes.join(", "))),
        (page.say("Legal basis", "Dasar hukum"), escape(&dataset.legal_basis)),
        (page.say("Kept", "Disimpan"), days),
    ] {
        page.add(format_args!("<dt>{name}</dt><dd>{value}</dd>"));
    }
    page.add(format_args!(
        "</dl><div class=\"wide\"><table><caption>{}</caption><thead><tr><th scope=\"col\">{}</th><th scope=\"col\">{}</th></tr></thead><tbody>",
        page.say("What is kept of each thing", "Yang disimpan tentang tiap hal"),
        page.say("Attribute", "Atribut"),
        page.say("Sensitivity", "Kepekaan"),
    ));
    for attribute in &dataset.attributes {
        page.add(format_args!(
            "<tr><th scope=\"row\"><code>{}</code></th><td><span class=\"level {}\">{}</span></td></tr>",
            escape(attribute.name.as_str()),
            attribute.sensitivity.word(),
            sensitivity(&page, attribute.sensitivity),
        ));
    }
    page.add("</tbody></table></div>");
    let kind = dataset.claims.first().map(|claim| escape(claim.of_type.as_str()));
    if let (true, Some(kind)) = (is_open(&dataset), kind) {
        let path = format!("/ngsi-ld/v1/entities?type={kind}&amp;limit=1000");
        page.add(format_args!(
            "<h2>{}</h2><ul><li><a href=\"{path}&amp;options=keyValues\">{}</a></li>\
             <li><a href=\"{path}\">{}</a></li></ul><p>{}</p><pre>curl '{}{path}&amp;options=keyValues'</pre>",
            page.say("Get the open part", "Ambil bagian terbuka"),
            page.say("The values (JSON)", "Nilainya (JSON)"),
            page.say("With units and times (NGSI-LD)", "Dengan satuan dan waktu (NGSI-LD)"),
            page.say("By program:", "Dengan program:"),
            escape(&call.app.base_url),
        ));
    } else {
        page.add(format_args!(
            "<p>{}</p>",
            page.say(
                "This dataset is not published. That it is kept, and why, is no secret.",
                "Himpunan data ini tidak diterbitkan. Bahwa ia disimpan, dan mengapa, bukan rahasia.",
            )
        ));
    }
    Ok(page.finish(&call.app, &dataset.title))
}

/// The log of acts: its key, its last checkpoint, and how to check it.
pub async fn log(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Html<String> {
    let mut page = Page::new("/public/log", &headers, query.as_deref());
    page.add(format_args!(
        "<p class=\"lead\">{}</p><h2>{}</h2><pre>{}</pre><h2>{}</h2><pre>{}</pre><h2>{}</h2><p>{}</p><ol><li>{}</li><li>{}</li><li>{}</li></ol>\
         <pre>curl {base}/log/checkpoint\ncurl {base}/log/vkey\ncurl {base}/log/tile/0/000</pre>",
        page.say(
            "Every act in this hub is written into a log that nobody can change unseen, not even whoever runs it.",
            "Setiap tindakan di hub ini dicatat dalam log yang tidak dapat diubah diam-diam, bahkan oleh pengelolanya.",
        ),
        page.say("Its public key", "Kunci publiknya"),
        escape(&app.hub.vkey()),
        page.say("Its last signed checkpoint", "Titik periksa bertanda tangan terakhir"),
        escape(&app.hub.checkpoint()),
        page.say("Check it yourself", "Periksa sendiri"),
        page.say(
            "The log is a Merkle tree in the tiles that public tools read (C2SP tlog-tiles).",
            "Log ini berupa pohon Merkle dalam ubin yang dibaca alat-alat umum (C2SP tlog-tiles).",
        ),
        page.say(
            "Keep a checkpoint today: a copy, on paper even.",
            "Simpan titik periksa hari ini: salinannya, di kertas pun bisa.",
        ),
        page.say(
            "Fetch the tiles later, and compute the root again.",
            "Ambil ubinnya nanti, lalu hitung kembali akarnya.",
        ),
        page.say(
            "If your checkpoint does not grow into the new one, something was changed: ask why.",
            "Jika titik periksa Anda tidak menyambung ke yang baru, ada yang diubah: tanyakan mengapa.",
        ),
        base = escape(&app.base_url),
    ));
    let title = page.say("The log of acts", "Catatan kerja");
    page.finish(&app, title)
}

fn receipt_form(page: &mut Page, text: &str) {
    page.add(format_args!(
        "<form method=\"post\" action=\"/public/receipt?lang={}\"><label for=\"receipt\">{}</label>\
         <textarea id=\"receipt\" name=\"receipt\" rows=\"12\" required spellcheck=\"false\" maxlength=\"{MAX_RECEIPT}\">{}</textarea>\
         <p><button>{}</button></p></form><p>{}</p>",
        page.language.tag(),
        page.say("The receipt, whole", "Tanda terima, seutuhnya"),
        escape(text),
        page.say("Check", "Periksa"),
        page.say(
            "A receipt proves that a record is in the log. It says nothing of what the record holds.",
            "Tanda terima membuktikan bahwa suatu catatan ada dalam log. Isinya tidak disebutkan.",
        ),
    ));
}

/// Longest receipt, in bytes.
const MAX_RECEIPT: usize = 16 << 10;

/// Where a receipt is pasted.
pub async fn receipt(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Html<String> {
    let mut page = Page::new("/public/receipt", &headers, query.as_deref());
    receipt_form(&mut page, "");
    let title = page.say("Check a receipt", "Periksa tanda terima");
    page.finish(&app, title)
}

/// Whether a pasted receipt holds.
pub async fn check_receipt(call: Call) -> Result<Html<String>, Problem> {
    if call.body.len() > 4 * MAX_RECEIPT {
        return Err(Problem::too_large(format!("a receipt has at most {MAX_RECEIPT} bytes")));
    }
    let mut page = Page::new("/public/receipt", &call.headers, call.uri.query());
    let body = std::str::from_utf8(&call.body).unwrap_or_default();
    let text = form_field(body, "receipt").replace("\r\n", "\n");
    // Browsers cut the end of the last line, which the signature needs.
    let text = format!("{}\n", text.trim());
    let key = VerifyingKey::parse(&call.app.hub.vkey());
    let checked = key.map_err(|error| error.to_string()).and_then(|key| {
        let receipt = Receipt::parse(&text).map_err(|error| error.to_string())?;
        let at = receipt.verify(&key).map_err(|error| error.to_string())?;
        Ok((receipt.index, at.size))
    });
    match checked {
        Ok((index, size)) => page.add(format_args!(
            "<p class=\"good\" role=\"status\"><strong>{}</strong> {} {}, {} {}.</p>",
            page.say("It holds.", "Sah."),
            page.say("Record", "Catatan"),
            page.number(index),
            page.say("in a log of", "dalam log berisi"),
            page.number(size),
        )),
        Err(why) => page.add(format_args!(
            "<p class=\"bad\" role=\"alert\"><strong>{}</strong> {}</p>",
            page.say("It does not hold.", "Tidak sah."),
            escape(&say(&why, page.language)),
        )),
    }
    receipt_form(&mut page, &text);
    let title = page.say("Check a receipt", "Periksa tanda terima");
    Ok(page.finish(&call.app, title))
}

/// A field of a form (`application/x-www-form-urlencoded`).
fn form_field(body: &str, name: &str) -> String {
    let of = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        if key == name { crate::params::decode(value) } else { None }
    };
    body.split('&').find_map(of).unwrap_or_default()
}
