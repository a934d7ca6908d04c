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

/// Formats a number with enough digits to distinguish the quarters of an axis.
pub(crate) fn label(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
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

    /// Adds a panel of `height` whose axes run from 0 to `most`, with labels at their quarters,
    /// formatted by functions of the value.
    pub fn panel(
        &mut self,
        height: f64,
        most: (f64, f64),
        x: impl Fn(f64) -> String,
        y: impl Fn(f64) -> String,
    ) -> Panel {
        let most = (most.0.max(f64::MIN_POSITIVE), most.1.max(f64::MIN_POSITIVE));
        let panel = Panel { top: self.height + MARGIN.1, height: height - 2.0 * MARGIN.1, most };
        self.height += height;
        for quarter in 0..=4 {
            let share = f64::from(quarter) / 4.0;
            let (across, up) = panel.at((most.0 * share, most.1 * share));
            let (left, right, bottom) = (MARGIN.0, WIDTH - MARGIN.0, panel.top + panel.height);
            // Writing to a string does not fail, here and below.
            let _ = writeln!(
                self.body,
                "<path d=\"M{left} {up:.1}H{right}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
                 <text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                left - 6.0,
                up + 4.0,
                escape(&y(most.1 * share)),
                bottom + 18.0,
                escape(&x(most.0 * share)),
            );
        }
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
