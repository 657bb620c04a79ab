//! Perceptually uniform colour maps: equal steps of a value look like equal steps of colour.

use serde::{Deserialize, Serialize};

/// Colour maps of matplotlib (by Stéfan van der Walt and Nathaniel Smith, CC0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourMap {
    /// Dark violet, green, yellow.
    Viridis,
    /// Black, red, orange, pale yellow.
    #[default]
    Inferno,
    /// Black, violet, pink, cream.
    Magma,
    /// Blue, grey, yellow: alike to all eyes, those that see no red or no green too (Nuñez et al. 2018,
    /// <https://arxiv.org/abs/1712.01662>).
    Cividis,
}

impl ColourMap {
    /// Every map, the default first.
    pub const ALL: [Self; 4] = [Self::Inferno, Self::Viridis, Self::Cividis, Self::Magma];

    /// The name: lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viridis => "viridis",
            Self::Inferno => "inferno",
            Self::Magma => "magma",
            Self::Cividis => "cividis",
        }
    }

    /// Colours at equal steps from 0 to 1, as red, green and blue.
    pub fn stops(self) -> &'static [[u8; 3]] {
        match self {
            Self::Viridis => &VIRIDIS,
            Self::Inferno => &INFERNO,
            Self::Magma => &MAGMA,
            Self::Cividis => &CIVIDIS,
        }
    }

    /// Red, green and blue of `value` in 0..=1; values outside are clamped, NaN is 0.
    pub fn colour(self, value: f32) -> [u8; 3] {
        let stops = self.stops();
        let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        let position = value * (stops.len() - 1) as f32;
        let lower = (position as usize).min(stops.len() - 2);
        let share = position - lower as f32;
        let [from, to] = [stops[lower], stops[lower + 1]];
        [0, 1, 2].map(|channel| {
            let (from, to) = (f32::from(from[channel]), f32::from(to[channel]));
            (from + (to - from) * share + 0.5) as u8
        })
    }
}

#[rustfmt::skip]
const VIRIDIS: [[u8; 3]; 33] = [
    [68, 1, 84], [71, 13, 96], [72, 24, 106], [72, 35, 116], [71, 45, 123], [69, 55, 129],
    [66, 64, 134], [62, 73, 137], [59, 82, 139], [55, 91, 141], [51, 99, 141], [47, 107, 142],
    [44, 114, 142], [41, 122, 142], [38, 130, 142], [35, 137, 142], [33, 145, 140], [31, 152, 139],
    [31, 160, 136], [34, 167, 133], [40, 174, 128], [50, 182, 122], [63, 188, 115], [78, 195, 107],
    [94, 201, 98], [112, 207, 87], [132, 212, 75], [152, 216, 62], [173, 220, 48], [194, 223, 35],
    [216, 226, 25], [236, 229, 27], [253, 231, 37],
];

#[rustfmt::skip]
const INFERNO: [[u8; 3]; 33] = [
    [0, 0, 4], [4, 3, 18], [11, 7, 36], [21, 11, 55], [33, 12, 74], [47, 10, 91],
    [61, 9, 101], [74, 12, 107], [87, 16, 110], [100, 21, 110], [113, 25, 110], [125, 30, 109],
    [138, 34, 106], [151, 39, 102], [163, 44, 97], [176, 49, 91], [188, 55, 84], [199, 62, 76],
    [210, 70, 68], [219, 80, 59], [228, 90, 49], [235, 102, 40], [241, 115, 29], [246, 128, 19],
    [249, 142, 9], [251, 157, 7], [252, 172, 17], [251, 188, 33], [249, 203, 53], [245, 219, 76],
    [242, 234, 105], [243, 246, 138], [252, 255, 164],
];

#[rustfmt::skip]
const MAGMA: [[u8; 3]; 33] = [
    [0, 0, 4], [3, 3, 18], [10, 8, 34], [19, 13, 52], [29, 17, 71], [41, 17, 90],
    [54, 16, 107], [68, 15, 118], [81, 18, 124], [93, 23, 127], [106, 28, 129], [118, 33, 129],
    [131, 38, 129], [144, 42, 129], [156, 46, 127], [170, 51, 125], [183, 55, 121], [196, 60, 117],
    [208, 65, 111], [220, 72, 105], [231, 82, 99], [239, 93, 94], [245, 107, 92], [249, 121, 93],
    [252, 137, 97], [253, 152, 105], [254, 167, 114], [254, 182, 124], [254, 196, 136], [254, 211, 149],
    [253, 226, 163], [252, 240, 178], [252, 253, 191],
];

#[rustfmt::skip]
const CIVIDIS: [[u8; 3]; 33] = [
    [0, 34, 78], [0, 40, 91], [0, 46, 106], [5, 51, 113], [26, 56, 111], [39, 62, 110],
    [50, 67, 109], [59, 73, 108], [67, 78, 108], [75, 84, 108], [83, 90, 109], [90, 95, 110],
    [97, 101, 111], [104, 106, 113], [111, 112, 115], [118, 118, 118], [125, 124, 120], [132, 130, 121],
    [140, 136, 120], [147, 142, 120], [155, 148, 118], [163, 154, 116], [171, 160, 114], [180, 167, 111],
    [188, 174, 108], [196, 180, 104], [205, 187, 99], [213, 194, 94], [222, 201, 88], [231, 209, 80],
    [240, 216, 70], [249, 224, 58], [254, 232, 56],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_the_published_ones() {
        assert_eq!(ColourMap::Viridis.colour(0.0), [68, 1, 84]);
        assert_eq!(ColourMap::Viridis.colour(1.0), [253, 231, 37]);
        assert_eq!(ColourMap::Inferno.colour(1.0), [252, 255, 164]);
        assert_eq!(ColourMap::Magma.colour(0.0), [0, 0, 4]);
    }

    #[test]
    fn any_value_has_a_colour() {
        for map in ColourMap::ALL {
            assert_eq!(map.colour(-3.0), map.colour(0.0));
            assert_eq!(map.colour(f32::NAN), map.colour(0.0));
            assert_eq!(map.colour(f32::INFINITY), map.colour(1.0));
        }
    }

    #[test]
    fn lightness_never_falls() {
        for map in ColourMap::ALL {
            let lightness = |step: u16| {
                let [red, green, blue] = map.colour(f32::from(step) / 255.0).map(f32::from);
                0.2126 * red + 0.7152 * green + 0.0722 * blue
            };
            for step in 1..=255 {
                assert!(lightness(step) > lightness(step - 1) - 1.0, "{map:?} at {step}");
            }
            assert!(lightness(255) > lightness(0) + 150.0);
        }
    }
}
