//! The colours of charts and page, in light and dark.
//!
//! Charts are drawn once, in the light colours; a style sheet replaces each of them by a variable,
//! which has another value in the dark.

use plotters::style::RGBColor;

/// A colour: its variable's name, and its values.
pub(super) struct Shade {
    name: &'static str,
    light: [u8; 3],
    dark: [u8; 3],
}

impl Shade {
    const fn new(name: &'static str, light: [u8; 3], dark: [u8; 3]) -> Self {
        Self { name, light, dark }
    }

    /// What charts are drawn in.
    pub(super) fn color(&self) -> RGBColor {
        let [red, green, blue] = self.light;
        RGBColor(red, green, blue)
    }
}

pub(super) const BACKGROUND: Shade = Shade::new("background", [255, 255, 255], [13, 17, 23]);
pub(super) const TEXT: Shade = Shade::new("text", [31, 35, 40], [230, 237, 243]);
pub(super) const MUTED: Shade = Shade::new("muted", [89, 99, 110], [145, 152, 161]);
pub(super) const GRID: Shade = Shade::new("grid", [223, 227, 232], [45, 51, 59]);
pub(super) const BAND: Shade = Shade::new("band", [221, 244, 255], [18, 36, 61]);
pub(super) const MILLSTREAM: Shade = Shade::new("millstream", [9, 105, 218], [68, 147, 248]);
pub(super) const BASELINE: Shade = Shade::new("baseline", [66, 74, 83], [176, 184, 194]);
pub(super) const PEER: Shade = Shade::new("peer", [165, 174, 184], [92, 101, 112]);
pub(super) const FAILED: Shade = Shade::new("failed", [207, 34, 46], [248, 81, 73]);

const ALL: [Shade; 9] = [BACKGROUND, TEXT, MUTED, GRID, BAND, MILLSTREAM, BASELINE, PEER, FAILED];

/// The style sheet that charts need, with a variable for each colour.
pub(super) fn style_sheet() -> String {
    let values = |of: fn(&Shade) -> [u8; 3]| -> String {
        ALL.iter().map(|shade| format!("--{}:{};", shade.name, hexadecimal(of(shade)))).collect()
    };
    let (light, dark) = (values(|shade| shade.light), values(|shade| shade.dark));
    let replaced: String = ALL.iter().map(replacement).collect();
    format!(
        ":root{{color-scheme:light dark;{light}}}\n\
         @media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n\
         text{{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}}\n{replaced}"
    )
}

fn replacement(shade: &Shade) -> String {
    let (name, light) = (shade.name, hexadecimal(shade.light));
    format!(
        "[fill=\"{light}\"]{{fill:var(--{name})}}[stroke=\"{light}\"]{{stroke:var(--{name})}}\n"
    )
}

/// As in the charts' attributes.
fn hexadecimal([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_light_colour_stands_for_one_shade() {
        let colours: HashSet<[u8; 3]> = ALL.iter().map(|shade| shade.light).collect();
        assert_eq!(colours.len(), ALL.len());
    }
}
