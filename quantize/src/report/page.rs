//! A report as one self-contained HTML page without scripts.

use std::fmt::Write;

use vaquita_runtime::checkpoint::Config;
use vaquita_runtime::svg::escape;

use super::{LayerReport, Report};
use crate::importance::Importance;
use crate::plan::{self, Plan};

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .9em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}";

/// The page of a file called `name`: sizes, errors, and the bits and tokens of every expert.
pub fn page(
    name: &str,
    report: &Report,
    config: &Config,
    plan: &Plan,
    importance: Option<&dyn Importance>,
) -> String {
    let name = escape(name);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{name}</h1>\n"
    );
    let counts = |types: &std::collections::BTreeMap<String, usize>| {
        let counts: Vec<String> = types.iter().map(|(ty, n)| format!("{ty} {n}")).collect();
        counts.join(", ")
    };
    let facts = [
        ("plan", report.plan.clone()),
        ("bytes", report.file_bytes.to_string()),
        ("weights", report.parameters.to_string()),
        ("bits per weight", format!("{:.3}", report.bits_per_weight)),
        ("bits per weight of the experts", format!("{:.3}", report.expert_bits_per_weight)),
        ("experts' matrices by type", counts(&report.expert_types)),
        ("dense matrices by type", counts(&report.dense_types)),
    ];
    let facts = facts.into_iter().chain(report.bits_per_weight_without_drafts.map(|bits| {
        ("bits per weight without the layers that only draft tokens (MTP)", format!("{bits:.3}"))
    }));
    let facts = facts.map(|(what, value)| vec![what.to_string(), value]);
    table(&mut html, &[], facts);

    let percent = |error: f64| format!("{:.3}%", error * 100.0);
    html.push_str("<h2>Errors by layer</h2>\n<p>Squared error relative to the squared weights, both weighed by importance where there is a calibration.</p>\n");
    html.push_str(&bars(report));
    let layers = report.layers.iter().map(|layer| {
        vec![
            layer.name(),
            layer.expert_error.map_or("-".into(), percent),
            percent(layer.other_error),
        ]
    });
    table(&mut html, &["layer", "experts", "the rest"], layers);

    html.push_str("<h2>Worst tensors</h2>\n");
    if report.bits_per_weight_without_drafts.is_some() {
        html.push_str(
            "<p>Of those that answers need: layers that only draft tokens are not listed.</p>\n",
        );
    }
    let worst = report.worst.iter();
    let worst = worst.map(|one| vec![one.name.clone(), one.ty.clone(), percent(one.error)]);
    table(&mut html, &["tensor", "type", "error"], worst);

    html.push_str("<h2>Bits and heat per expert</h2>\n<p>Three stripes per expert, for gate, up and down; the bars are the tokens that each saw, where calibration says so.</p>\n");
    html.push_str(&plan::map(config, plan, importance));
    html.push_str("</body></html>\n");
    html
}

fn table(html: &mut String, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    html.push_str("<table>");
    if !head.is_empty() {
        let cells: String = head.iter().map(|cell| format!("<th>{}</th>", escape(cell))).collect();
        let _ = writeln!(html, "<tr>{cells}</tr>"); // writing to a string does not fail
    }
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        let _ = writeln!(html, "<tr>{cells}</tr>");
    }
    html.push_str("</table>\n");
}

/// A row per layer with the errors of its experts and of its other tensors; without layers that
/// only draft tokens, whose errors change no answer.
fn bars(report: &Report) -> String {
    const ROW: usize = 22;
    const LEFT: f64 = 130.0;
    const WIDTH: f64 = 700.0;
    let layers: Vec<&LayerReport> = report.layers.iter().filter(|layer| !layer.drafts).collect();
    let errors = layers.iter();
    let errors = errors.flat_map(|layer| [layer.expert_error.unwrap_or(0.0), layer.other_error]);
    let most = errors.fold(f64::MIN_POSITIVE, f64::max);
    let height = layers.len() * ROW + 30;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect x=\"{LEFT}\" y=\"4\" width=\"10\" height=\"10\" fill=\"#3b6ea8\"/><text x=\"{}\" y=\"13\">experts</text>\n\
         <rect x=\"{}\" y=\"4\" width=\"10\" height=\"10\" fill=\"#c0562f\"/><text x=\"{}\" y=\"13\">the rest</text>\n",
        LEFT + 14.0,
        LEFT + 90.0,
        LEFT + 104.0,
    );
    for (row, layer) in layers.into_iter().enumerate() {
        let y = 24 + row * ROW;
        let name = layer.layer.map_or("embedding, output".into(), |layer| format!("layer {layer}"));
        let _ = writeln!(svg, "<text x=\"4\" y=\"{}\">{name}</text>", y + 14);
        let width = |error: f64| (WIDTH - LEFT - 10.0) * error / most;
        let bars = [(layer.expert_error, "#3b6ea8"), (Some(layer.other_error), "#c0562f")];
        for (at, (error, colour)) in bars.into_iter().enumerate() {
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"8\" fill=\"{colour}\"/>",
                y + 2 + at * 9,
                width(error.unwrap_or(0.0)),
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
