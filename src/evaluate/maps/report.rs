//! What was measured of maps, as text and as JSON.

use serde_json::{Value, json};

use super::{MapScores, MapsEvaluation, Ranked, Ratio, RemovalScores};
use crate::inspect::removal::Removal;
use crate::inspect::{Measure, RelevanceConfig};
use crate::metrics::bootstrap::{BootstrapConfig, Interval};
use crate::plural::counted;

/// Maps of the ranking that the text shows.
const SHOWN: usize = 10;

impl MapsEvaluation {
    /// For programs: `default`, and `methods` with the same of the best map of each method. Shares and areas
    /// are in `[0, 1]`; what could not be measured is null.
    pub fn to_json(&self) -> Value {
        let methods: Vec<Value> = self.maps.iter().map(|map| self.json_of(map)).collect();
        let mut default = methods[self.default_place].clone();
        default["stored"] = json!(self.is_stored);
        default["measured"] = json!(self.default.measured);
        default["above_attention"] = self.above_attention();
        json!({
            "split": self.split.name(),
            "images": self.images,
            "removal_images": self.removal_images,
            "default": default,
            "methods": methods,
            "agreement": self.agreement.as_ref().map(|found| json!({
                "kendall_tau": found.tau, "maps": found.maps,
            })),
            "ranking": {
                "split": self.choice.split.name(),
                "images": self.choice.images,
                "by": self.choice.by,
                "maps": self.choice.ranking.iter().map(|Ranked { map, merit }| json!({
                    "map": settings(map), "name": map.to_string(), "value": merit,
                })).collect::<Vec<_>>(),
            },
        })
    }

    fn json_of(&self, scores: &MapScores) -> Value {
        let interval = |ratio: &Ratio| pair(ratio.interval(self.bootstrap));
        let mut value = json!({
            "method": scores.map.method,
            "map": settings(&scores.map),
            "name": scores.map.to_string(),
            "pointing": null,
            "chance": null,
            "grid": null,
            "deletion": null,
        });
        if let Some(boxes) = &scores.boxes {
            value["pointing"] = json!(boxes.hits.value());
            value["pointing_interval"] = interval(&boxes.hits);
            value["pointing_words"] = json!(boxes.hits.words());
            value["chance"] = json!(boxes.chance.value());
            value["centre"] = json!(boxes.centre.value());
            value["inside"] = json!(boxes.inside.value());
            value["inside_interval"] = interval(&boxes.inside);
            value["inside_chance"] = json!(boxes.area.value());
            value["iou"] = json!(boxes.best_overlap().map(|found| found.0));
            value["iou_threshold"] = json!(boxes.best_overlap().map(|found| found.1));
            value["relations"] = json!(boxes.relations.value());
            value["relations_interval"] = interval(&boxes.relations);
            value["relations_words"] = json!(boxes.relations.words());
            value["relations_chance"] = json!(boxes.relations_chance.value());
        }
        let games = [("grid", &scores.pairs, 0.5), ("grid_four", &scores.fours, 0.25)];
        for (name, game, chance) in games {
            let Some(game) = game else { continue };
            value[name] = json!(game.own.value());
            value[format!("{name}_interval")] = interval(&game.own);
            value[format!("{name}_words")] = json!(game.own.words());
            value[format!("{name}_shared")] = json!(game.shared.value());
            value[format!("{name}_chance")] = json!(chance);
        }
        if value["chance"].is_null() && scores.pairs.is_some() {
            value["chance"] = json!(0.5);
        }
        if let Some(removal) = &scores.removal {
            let of_pixels = &removal[1];
            value["deletion"] = json!(of_pixels.deletion.value());
            value["insertion"] = json!(of_pixels.insertion.value());
            value["random"] = json!(of_pixels.random.value());
            value["removal"] = Removal::ALL
                .iter()
                .zip(removal)
                .map(|(way, scores)| (way.name().to_owned(), self.json_of_removal(scores)))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        value
    }

    fn json_of_removal(&self, scores: &RemovalScores) -> Value {
        let (draws, RemovalScores { deletion, insertion, random, gap }) = (self.bootstrap, scores);
        json!({
            "deletion": deletion.value(),
            "deletion_interval": pair(deletion.interval(draws)),
            "deletion_below_random": pair(random.difference(deletion, draws)),
            "insertion": insertion.value(),
            "insertion_interval": pair(insertion.interval(draws)),
            "insertion_above_random": pair(insertion.difference(random, draws)),
            "random": random.value(),
            "random_interval": pair(random.interval(draws)),
            "gap": gap.value(),
            "gap_interval": pair(gap.interval(draws)),
            "words": deletion.words(),
        })
    }

    /// The intervals of the default's lead over raw attention.
    fn above_attention(&self) -> Value {
        let (raw, best) = (&self.maps[0], &self.maps[self.default_place]);
        let lead = |of: &dyn Fn(&MapScores) -> Option<&Ratio>| {
            let (Some(raw), Some(best)) = (of(raw), of(best)) else { return Value::Null };
            pair(best.difference(raw, self.bootstrap))
        };
        json!({
            "pointing": lead(&|map| Some(&map.boxes.as_ref()?.hits)),
            "inside": lead(&|map| Some(&map.boxes.as_ref()?.inside)),
            "grid": lead(&|map| Some(&map.pairs.as_ref()?.own)),
            "grid_four": lead(&|map| Some(&map.fours.as_ref()?.own)),
            "gap_memory": lead(&|map| Some(&map.removal.as_ref()?[0].gap)),
            "gap_pixels": lead(&|map| Some(&map.removal.as_ref()?[1].gap)),
        })
    }

    /// For a reader: tables in Markdown, which stay in line on a terminal.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} of {}; the best of each method by {}, chosen on {} of {}\n",
            counted(self.images, "image"),
            self.split.name(),
            said(self.by),
            counted(self.choice.images, "image"),
            self.choice.split.name(),
        );
        let source = if self.is_stored { "named by the checkpoint" } else { "the best found" };
        text.push_str(&format!("default map, {source}: {}\n", self.default.map));
        if let Some(measured) = &self.default.measured {
            text.push_str(&format!("  {measured}\n"));
        }
        self.write_boxes(&mut text);
        self.write_grid(&mut text);
        self.write_removal(&mut text);
        text.push_str(&format!(
            "\nbest maps by {} on {}:\n",
            said(self.by),
            self.choice.split.name()
        ));
        for Ranked { map, merit } in self.choice.ranking.iter().take(SHOWN) {
            text.push_str(&format!("  {} {map}\n", percent(Some(*merit))));
        }
        text
    }

    fn write_boxes(&self, text: &mut String) {
        let Some(first) = self.maps.first().and_then(|map| map.boxes.as_ref()) else { return };
        let mut rows = vec![
            ["map", "peak in the box", "of the map inside", "IoU", "relation words"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for map in &self.maps {
            let Some(boxes) = &map.boxes else { continue };
            let iou = boxes.best_overlap().map(|found| found.0);
            rows.push(vec![
                self.name(map),
                with_interval(&boxes.hits, self.bootstrap),
                with_interval(&boxes.inside, self.bootstrap),
                iou.map_or_else(String::new, |iou| format!("{iou:.2}")),
                with_interval(&boxes.relations, self.bootstrap),
            ]);
        }
        let row = |name: &str, of: [Option<f64>; 3]| {
            let [hits, inside, relations] =
                of.map(|value| value.map_or_else(String::new, |value| percent(Some(value))));
            vec![name.to_owned(), hits, inside, String::new(), relations]
        };
        let (chance, area) = (first.chance.value(), first.area.value());
        rows.push(row("chance", [chance, area, first.relations_chance.value()]));
        rows.push(row("the image's centre", [first.centre.value(), None, None]));
        let words = counted(first.hits.words(), "word");
        text.push_str(&format!("\nboxes of objects and colours, {words}:\n{}", table(&rows)));
    }

    fn write_grid(&self, text: &mut String) {
        let Some(first) = self.maps.first().and_then(|map| map.pairs.as_ref()) else { return };
        let mut rows = vec![
            ["map", "own of two", "own of four", "shared words, of two", "shared words, of four"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for map in &self.maps {
            let cell = |ratio: Option<&Ratio>| {
                ratio.map_or_else(String::new, |ratio| with_interval(ratio, self.bootstrap))
            };
            let (two, four) = (map.pairs.as_ref(), map.fours.as_ref());
            rows.push(vec![
                self.name(map),
                cell(two.map(|game| &game.own)),
                cell(four.map(|game| &game.own)),
                cell(two.map(|game| &game.shared)),
                cell(four.map(|game| &game.shared)),
            ]);
        }
        rows.push(["chance", "50.0 %", "25.0 %", "50.0 %", "25.0 %"].map(str::to_owned).to_vec());
        let words = counted(first.own.words(), "word");
        text.push_str(&format!(
            "\nphotos side by side, a person's caption of one, {words}: share of a word's map on its own photo\n{}",
            table(&rows)
        ));
    }

    fn write_removal(&self, text: &mut String) {
        let Some(first) = self.maps.first().and_then(|map| map.removal.as_ref()) else { return };
        for (way, removal) in Removal::ALL.iter().enumerate() {
            let mut rows = vec![
                ["map", "most relevant first", "least relevant first", "difference"]
                    .map(str::to_owned)
                    .to_vec(),
            ];
            let cell = |ratio: &Ratio| with_interval(ratio, self.bootstrap);
            for map in &self.maps {
                let Some(scores) = map.removal.as_ref().map(|both| &both[way]) else { continue };
                let (deletion, insertion) = (cell(&scores.deletion), cell(&scores.insertion));
                rows.push(vec![self.name(map), deletion, insertion, cell(&scores.gap)]);
            }
            let random = cell(&first[way].random);
            rows.push(vec!["random order".into(), random.clone(), random, String::new()]);
            let how = match removal {
                Removal::Memory => "taken from what cross-attention reads",
                Removal::Pixels => "filled from the pixels around them",
            };
            text.push_str(&format!(
                "\nmean probability of a word as patches are {how}, {} of {}:\n{}",
                counted(first[way].deletion.words(), "word"),
                counted(self.removal_images, "image"),
                table(&rows)
            ));
        }
        if let Some(agreement) = &self.agreement {
            text.push_str(&format!(
                "the two ways rank {} with Kendall's τ = {:.2}\n",
                counted(agreement.maps, "map"),
                agreement.tau
            ));
        }
    }

    fn name(&self, map: &MapScores) -> String {
        let is_default = map.map == self.default.map;
        format!("{}{}", map.map, if is_default { " (default)" } else { "" })
    }
}

fn said(by: Measure) -> &'static str {
    match by {
        Measure::Pointing => "the pointing game",
        Measure::Grid => "the grid game",
    }
}

fn settings(map: &RelevanceConfig) -> Value {
    json!(map)
}

fn pair(interval: Option<Interval>) -> Value {
    json!(interval.map(|Interval { low, high }| [low, high]))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| format!("{:.1} %", 100.0 * value))
}

fn with_interval(ratio: &Ratio, bootstrap: BootstrapConfig) -> String {
    match (ratio.value(), ratio.interval(bootstrap)) {
        (Some(value), Some(Interval { low, high })) => {
            format!("{:.1} % ({:.1} to {:.1})", 100.0 * value, 100.0 * low, 100.0 * high)
        }
        (value, _) => percent(value),
    }
}

/// A Markdown table whose columns are in line.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let length = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| length(&row[column])).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("| {cell}{} ", " ".repeat(width - length(cell))));
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                text.push_str(&format!("|{}", "-".repeat(width + 2)));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_line() {
        let rows = [["map", "τ"], ["attention", "1.0"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "| map       | τ   |\n|-----------|-----|\n| attention | 1.0 |\n");
    }
}
