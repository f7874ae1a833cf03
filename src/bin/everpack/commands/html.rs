//! `stats --html`: one self-contained page: totals, lineages, growth and what each backup cost. No script, nothing loaded.

use std::fmt::Write;

use everpack::repo::BackupInfo;
use everpack::units;

/// Backups drawn; of more, the newest.
const BARS_MOST: usize = 400;
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#1c2733;\
background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #dde3ea}td.n,th.n{text-align:right;\
font-variant-numeric:tabular-nums}svg{width:100%;height:auto;background:#f5f7fa}.logical{fill:#b8c7d9}.stored{fill:#1f6feb}\
.new{fill:#2da44e}small{color:#5b6b7c}@media(prefers-color-scheme:dark){body{background:#11161c;color:#dbe4ee}\
svg{background:#1a222b}th,td{border-color:#2a3541}.logical{fill:#44566a}}";

/// The page: facts as name and value, lineages as rows, charts of the backups.
pub(super) fn page(location: &str, made: &str, facts: &[(String, String)], backups: &[BackupInfo]) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut page, location, made, facts, backups);
    page
}

fn write_page(
    page: &mut String,
    location: &str,
    made: &str,
    facts: &[(String, String)],
    backups: &[BackupInfo],
) -> std::fmt::Result {
    let (location, made) = (escape(location), escape(made));
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>everpack: {location}</title>"
    )?;
    write!(page, "<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n<body>\n")?;
    writeln!(page, "<h1>Backups in {location}</h1>\n<p><small>{made}</small></p>\n<table>")?;
    for (name, value) in facts {
        writeln!(page, "<tr><th>{}</th><td class=\"n\">{}</td></tr>", escape(name), escape(value))?;
    }
    writeln!(page, "</table>")?;
    let shown = &backups[backups.len().saturating_sub(BARS_MOST)..];
    if !shown.is_empty() {
        let mut sum = 0;
        let grown: Vec<u64> = backups
            .iter()
            .map(|backup| {
                sum += backup.summary.stored_bytes;
                sum
            })
            .collect();
        let grown = &grown[grown.len() - shown.len()..];
        chart(page, "Growth: stored bytes after each backup", shown, grown, "stored")?;
        let stored: Vec<u64> = shown.iter().map(|backup| backup.summary.stored_bytes).collect();
        chart(page, "Cost: bytes stored for each backup", shown, &stored, "new")?;
        let sizes: Vec<u64> = shown.iter().map(|backup| backup.summary.totals.bytes).collect();
        chart(page, "Size: logical bytes of each backup", shown, &sizes, "logical")?;
    }
    writeln!(page, "<h2>Backups</h2>\n<table>")?;
    writeln!(
        page,
        "<tr><th>id</th><th>time</th><th>lineage</th><th class=\"n\">files</th><th class=\"n\">size</th>\
         <th class=\"n\">new</th><th class=\"n\">stored</th></tr>"
    )?;
    for backup in shown.iter().rev() {
        let summary = &backup.summary;
        let partial = if summary.partial { " <b>partial</b>" } else { "" };
        writeln!(
            page,
            "<tr><td><code>{}</code>{partial}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            &backup.id.to_string()[..12],
            escape(&summary.started.to_local()),
            escape(&summary.lineage_name),
            units::count(summary.totals.files),
            units::bytes(summary.totals.bytes),
            units::bytes(summary.new_bytes),
            units::bytes(summary.stored_bytes),
        )?;
    }
    writeln!(page, "</table>\n</body></html>")
}

/// Bars, each with its backup and value as a tooltip.
#[allow(clippy::cast_precision_loss, reason = "a drawing")]
fn chart(page: &mut String, title: &str, backups: &[BackupInfo], values: &[u64], class: &str) -> std::fmt::Result {
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let step = WIDTH / values.len().max(1) as f64;
    writeln!(page, "<h2>{}</h2>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">", escape(title))?;
    for (at, (value, backup)) in values.iter().zip(backups).enumerate() {
        let height = (*value as f64 / most as f64 * (HEIGHT - 10.0)).max(1.0);
        writeln!(
            page,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{} {}: {}</title></rect>",
            at as f64 * step,
            HEIGHT - height,
            (step * 0.85).min(60.0),
            escape(&backup.summary.started.to_local()),
            escape(&backup.summary.lineage_name),
            units::bytes(*value),
        )?;
    }
    writeln!(page, "</svg>\n<p><small>highest: {}</small></p>", units::bytes(most))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        let page = page("<script>", "now", &[("a&b".to_owned(), "\"1\"".to_owned())], &[]);
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;") && page.contains("a&amp;b"));
    }
}
