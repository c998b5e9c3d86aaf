//! The report as a badge.

use serde_json::json;

use super::{Report, SUITE_VERSION};

/// What a character of a badge's eleven pixel sans serif is wide, on average and rounded up.
const CHARACTER: usize = 7;
const PADDING: usize = 10;

impl Report {
    /// A badge as [shields.io](https://shields.io/badges/endpoint-badge) reads it from an address of yours.
    #[must_use]
    pub fn to_shields_endpoint(&self) -> String {
        let (message, color) = self.badge();
        let badge = json!({
            "schemaVersion": 1,
            "label": self.label(),
            "message": message,
            "color": color.name,
            "isError": !self.is_success(),
        });
        format!("{badge:#}\n")
    }

    /// A badge that needs nobody else.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let (message, color) = self.badge();
        let label = escaped(&self.label());
        let left = CHARACTER * self.label().chars().count() + PADDING;
        let right = CHARACTER * message.chars().count() + PADDING;
        let width = left + right;
        let (at_label, at_message) = (left / 2, left + right / 2);
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{label}: {message}">
<title>{label}: {message}</title>
<clipPath id="r"><rect width="{width}" height="20" rx="3"/></clipPath>
<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#555"/><rect x="{left}" width="{right}" height="20" fill="{fill}"/></g>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{at_label}" y="14">{label}</text><text x="{at_message}" y="14">{message}</text>
</g>
</svg>
"##,
            fill = color.hex,
        )
    }

    fn label(&self) -> String {
        format!("distlock suite {}", self.suite)
    }

    fn badge(&self) -> (String, Color) {
        let totals = self.totals();
        let of_whole = match self.complete {
            true => "",
            false => " of a part",
        };
        if totals.failed > 0 {
            return (format!("{} failed{of_whole}", totals.failed), RED);
        }
        if totals.passed == 0 {
            return ("nothing was tried".to_owned(), RED);
        }
        let deviating = match totals.deviating {
            0 => String::new(),
            count => format!(", {count} deviating"),
        };
        let color = match (self.complete, self.suite < SUITE_VERSION, totals.deviating) {
            (false, ..) | (_, true, _) => GREY,
            (_, _, 0) => GREEN,
            _ => YELLOW_GREEN,
        };
        (
            format!("{} passed{deviating}{of_whole}", totals.passed),
            color,
        )
    }
}

/// A color, as shields.io names it and as a number.
#[derive(Clone, Copy)]
struct Color {
    name: &'static str,
    hex: &'static str,
}

const GREEN: Color = Color {
    name: "brightgreen",
    hex: "#4c1",
};
const YELLOW_GREEN: Color = Color {
    name: "yellowgreen",
    hex: "#a4a61d",
};
const GREY: Color = Color {
    name: "lightgrey",
    hex: "#9f9f9f",
};
const RED: Color = Color {
    name: "red",
    hex: "#e05d44",
};

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
