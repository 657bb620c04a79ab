//! Maps against the boxes of what words name, on scenes of known truth.

use super::super::scenes::Places;
use super::ratio::Ratio;
use super::{EvaluateError, Event, MapScores, Observer, Setup};
use crate::data::shapes::{check_caption, grounded_words, related_words};
use crate::data::{ImageRecord, SkippedImage, SkippedImages};
use crate::inspect::pointing::{chance, coverage, inside, overlap, peak, share_inside};
use crate::inspect::{InspectConfig, Inspection, RelevanceConfig, View};

/// Shares of a map's maximum at which it is cut.
pub const THRESHOLDS: usize = 19;

/// A map against boxes.
#[derive(Debug, Clone, Default)]
pub struct BoxScores {
    /// Object and colour words whose map peaks in their object's box (Zhang et al. 2016).
    pub hits: Ratio,
    /// The share of a word's map in the box.
    pub inside: Ratio,
    /// Relation words whose map peaks in a box of one of both objects.
    pub relations: Ratio,
    /// What a random patch would hit.
    pub chance: Ratio,
    /// What a random patch would hit of both objects of a relation.
    pub relations_chance: Ratio,
    /// What the middle of the image would hit.
    pub centre: Ratio,
    /// What share of the image the box is: the share inside of an even map.
    pub area: Ratio,
    /// Sums of the intersection over union at each threshold, 5 % of the maximum to 95 %.
    overlaps: [f64; THRESHOLDS],
}

impl BoxScores {
    /// The mean intersection over union at the threshold that is best for all words together, and the
    /// threshold, as a share of the map's maximum.
    pub fn best_overlap(&self) -> Option<(f64, f64)> {
        let words = self.hits.words();
        let best = self.overlaps.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        (words > 0).then(|| (best.1 / words as f64, f64::from(threshold(best.0))))
    }
}

fn threshold(place: usize) -> f32 {
    (place + 1) as f32 / (THRESHOLDS + 1) as f32
}

/// Adds the words of correct captions of `records` to the scores of each map.
pub(super) fn measure(
    setup: &Setup<'_>,
    records: &[&ImageRecord],
    maps: &mut [MapScores],
    skipped: &mut SkippedImages,
    observer: Observer<'_>,
) -> Result<(), EvaluateError> {
    let subjects = setup.subjects(records, skipped, observer)?;
    let wanted: Vec<RelevanceConfig> = maps.iter().map(|map| map.map.clone()).collect();
    let what = InspectConfig { maps: wanted, ..InspectConfig::default() };
    for scores in maps.iter_mut() {
        scores.boxes = Some(BoxScores::default());
    }
    observer(Event::Measure { what: "point", images: subjects.len() });
    for subject in &subjects {
        observer(Event::Image);
        let Some(scene) = &subject.scene else { continue };
        if !check_caption(&subject.caption, scene).correct {
            continue;
        }
        let photo = match subject.record.image.decode(&setup.limits) {
            Ok(photo) => photo,
            Err(error) => {
                let path = subject.record.image.path().to_owned();
                skipped.add(SkippedImage { path, reason: error.to_string() });
                continue;
            }
        };
        let view = View::new(setup.checkpoint, setup.device, &photo, &what.maps);
        let inspection = view.read(&subject.ids, &what, &mut |_| ())?;
        let places = Places::new(&inspection);
        let named: Vec<(usize, [f32; 4])> = grounded_words(&inspection.caption, scene)
            .iter()
            .filter_map(|word| Some((places.of(word.index)?, word.bbox.map(|edge| edge as f32))))
            .collect();
        let related: Vec<(usize, [[f32; 4]; 2])> = related_words(&inspection.caption, scene)
            .iter()
            .filter_map(|word| {
                Some((places.of(word.index)?, word.boxes.map(|one| one.map(|edge| edge as f32))))
            })
            .collect();
        for (place, scores) in maps.iter_mut().enumerate() {
            if let Some(scores) = &mut scores.boxes {
                scores.add(&inspection, place, &named, &related);
            }
        }
    }
    observer(Event::Done);
    Ok(())
}

impl BoxScores {
    /// Adds an image; the map is the inspection's at `place`.
    fn add(
        &mut self,
        inspection: &Inspection,
        place: usize,
        named: &[(usize, [f32; 4])],
        related: &[(usize, [[f32; 4]; 2])],
    ) {
        let (rows, cols, region) = (inspection.rows, inspection.cols, inspection.region);
        let map = |word: usize| inspection.maps[place].words[word].map.as_slice();
        let [x0, y0, x1, y1] = region;
        let middle = ((x0 + x1) / 2.0, (y0 + y1) / 2.0);
        let (mut hits, mut shares, mut chances, mut centres, mut areas) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let hit = |point, bbox| f64::from(u8::from(inside(point, bbox)));
        for (word, bbox) in named {
            let covered = coverage(rows, cols, region, *bbox);
            let even = covered.iter().sum::<f32>() / covered.len() as f32;
            hits += hit(peak(map(*word), rows, cols, region), *bbox);
            shares += share_inside(map(*word), &covered).unwrap_or(f64::from(even));
            chances += chance(rows, cols, region, *bbox);
            centres += hit(middle, *bbox);
            areas += f64::from(even);
            for (at, sum) in self.overlaps.iter_mut().enumerate() {
                *sum += overlap(map(*word), &covered, threshold(at));
            }
        }
        let (mut relations, mut relation_chances) = (0.0, 0.0);
        for (word, boxes) in related {
            let point = peak(map(*word), rows, cols, region);
            relations += boxes.iter().map(|one| hit(point, *one)).sum::<f64>().min(1.0);
            // Objects of a scene do not overlap.
            relation_chances +=
                boxes.iter().map(|one| chance(rows, cols, region, *one)).sum::<f64>();
        }
        self.hits.push(hits, named.len());
        self.inside.push(shares, named.len());
        self.chance.push(chances, named.len());
        self.centre.push(centres, named.len());
        self.area.push(areas, named.len());
        self.relations.push(relations, related.len());
        self.relations_chance.push(relation_chances, related.len());
    }
}
