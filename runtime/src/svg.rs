//! Line charts as SVG.

use std::fmt::Write;

/// Size of a panel and margins around its axes.
const WIDTH: f64 = 720.0;
const MARGIN: (f64, f64) = (70.0, 40.0);

/// Escapes text for use between tags.
pub fn escape(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    escaped.chars().filter(|c| !c.is_control()).collect()
}

/// Number of steps of an axis, at most.
const STEPS: f64 = 5.0;

/// Steps of an axis that runs from 0 to `most`, at round numbers, with exact labels.
fn ticks(most: f64) -> Vec<(f64, String)> {
    let least = most / STEPS;
    let power = 10f64.powf(least.log10().floor());
    let round = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|round| round * power >= least);
    let step = round.unwrap_or(10.0) * power;
    // 2.5 needs one more decimal than 1, 2 and 5.
    let decimals = (0..12).find(|&digits| {
        let shifted = step * 10f64.powi(digits);
        (shifted - shifted.round()).abs() < 1e-6 * shifted
    });
    let decimals = decimals.unwrap_or(12) as usize;
    let count = (most / step * (1.0 + 1e-9)).floor() as u32;
    (0..=count)
        .map(|i| (f64::from(i) * step, format!("{:.decimals$}", f64::from(i) * step)))
        .collect()
}

/// A drawing with panels stacked from top to bottom.
pub(crate) struct Drawing {
    body: String,
    height: f64,
}

/// Axes of a panel.
pub(crate) struct Panel {
    top: f64,
    height: f64,
    most: (f64, f64),
}

impl Drawing {
    pub fn new() -> Self {
        Self { body: String::new(), height: 0.0 }
    }

    /// Adds a panel of `height` whose axes run from 0 to `most` and have these titles, across and
    /// up.
    pub fn panel(&mut self, height: f64, most: (f64, f64), titles: (&str, &str)) -> Panel {
        let most = (most.0.max(f64::MIN_POSITIVE), most.1.max(f64::MIN_POSITIVE));
        let panel = Panel { top: self.height + MARGIN.1, height: height - 2.0 * MARGIN.1, most };
        self.height += height;
        let (left, right, bottom) = (MARGIN.0, WIDTH - MARGIN.0, panel.top + panel.height);
        // Writing to a string does not fail, here and below.
        for (value, label) in ticks(most.1) {
            let up = panel.at((0.0, value)).1;
            let _ = writeln!(
                self.body,
                "<path d=\"M{left} {up:.1}H{right}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 6.0,
                up + 4.0,
            );
        }
        for (value, label) in ticks(most.0) {
            let across = panel.at((value, 0.0)).0;
            let _ = writeln!(
                self.body,
                "<path d=\"M{across:.1} {bottom}v4\" stroke=\"#777\"/>\n\
                 <text x=\"{across:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                bottom + 17.0,
            );
        }
        let (middle, up) = ((left + right) / 2.0, panel.top + panel.height / 2.0);
        let _ = writeln!(
            self.body,
            "<path d=\"M{left} {}V{bottom}H{right}\" fill=\"none\" stroke=\"#777\"/>\n\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(16 {up}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            panel.top,
            bottom + 33.0,
            escape(titles.0),
            escape(titles.1),
        );
        panel
    }

    /// Draws a curve.
    pub fn curve(&mut self, panel: &Panel, colour: &str, points: &[(f64, f64)]) {
        let place = |point: &(f64, f64)| {
            let (x, y) = panel.at(*point);
            format!("{x:.1},{y:.1}")
        };
        let points: Vec<String> = points.iter().map(place).collect();
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
    }

    /// Writes a line of text at the panel's lower right, `line` lines above the axis.
    pub fn name(&mut self, panel: &Panel, colour: &str, line: usize, text: &str) {
        let _ = writeln!(
            self.body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
            WIDTH - MARGIN.0 - 6.0,
            panel.top + panel.height - 20.0 * line as f64,
            escape(text)
        );
    }

    /// Writes a title above the panel's left end.
    pub fn title(&mut self, panel: &Panel, text: &str) {
        let (x, y) = (MARGIN.0, panel.top - 10.0);
        let _ = writeln!(self.body, "<text x=\"{x}\" y=\"{y}\">{}</text>", escape(text));
    }

    /// Draws a vertical line at `x`, with a text at its top.
    pub fn upright(&mut self, panel: &Panel, x: f64, text: &str) {
        let (x, y) = (panel.at((x, 0.0)).0, panel.top);
        let _ = writeln!(
            self.body,
            "<path d=\"M{x:.1} {y:.1}v{:.1}\" stroke=\"#bbb\" stroke-dasharray=\"3\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#777\">{}</text>",
            panel.height,
            x + 3.0,
            y + 10.0,
            escape(text)
        );
    }

    /// The complete SVG file.
    pub fn finish(self) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.height, self.body
        )
    }
}

impl Panel {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = MARGIN.0 + (WIDTH - 2.0 * MARGIN.0) * x / self.most.0;
        (across, self.top + self.height * (1.0 - y / self.most.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_an_axis_are_round_and_their_labels_exact() {
        let labels = |most| ticks(most).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(2.5), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!(labels(10.9), ["0.0", "2.5", "5.0", "7.5", "10.0"]);
        assert_eq!(labels(100.0), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(0.012), ["0.0000", "0.0025", "0.0050", "0.0075", "0.0100"]);
        for most in [1e-9, 0.3, 1.0, 7.0, 99.9, 123_456.0, f64::MIN_POSITIVE] {
            let ticks = ticks(most);
            assert!((3..=6).contains(&ticks.len()), "{most}: {ticks:?}");
            for (value, label) in ticks {
                let shown: f64 = label.parse().unwrap();
                assert!(most < 1e-6 || (shown - value).abs() <= 1e-9 * most, "{most}: {label}");
            }
        }
    }
}
