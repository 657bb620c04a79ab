use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::generate::GenerateConfig;

/// Numbers with what came of them, in the groups that they came back in.
type Groups = Vec<Vec<(usize, Result<String, &'static str>)>>;

/// Numbers as photos: every one that is divisible by seven cannot be read, by five is not admitted.
struct Numbers {
    /// The most that were read at a time and not handed back.
    held: AtomicUsize,
    admitted: Mutex<Vec<usize>>,
}

impl Source for Numbers {
    type Item = usize;
    type Unread = &'static str;

    fn read(&self, item: &mut usize) -> Result<RgbImage, &'static str> {
        if item.is_multiple_of(11) {
            thread::sleep(Duration::from_millis(30));
        }
        self.held.fetch_add(1, Ordering::SeqCst);
        let shade = u8::try_from(*item % 256).unwrap_or(0);
        let photo = RgbImage::from_pixel(32, 32, ::image::Rgb([shade, 255 - shade, 7]));
        if item.is_multiple_of(7) { Err("unreadable") } else { Ok(photo) }
    }

    fn admit(&self, item: &mut usize) -> Result<(), &'static str> {
        lock(&self.admitted).push(*item);
        if item.is_multiple_of(5) { Err("not wanted") } else { Ok(()) }
    }
}

/// A model that knows nothing, of the parity tests.
fn checkpoint(device: &Device) -> Checkpoint {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/blip");
    crate::checkpoint::load(&folder, device).unwrap()
}

fn config(filling: Filling, workers: usize) -> CaptionConfig {
    let generate = GenerateConfig::greedy(3);
    let usual = CaptionConfig::new(generate, &Device::flex());
    CaptionConfig { filling, workers, batch_size: 4, ..usual }
}

/// The groups that `count` numbers came back in, with the captions' scores.
fn run(
    devices: usize,
    config: &CaptionConfig,
    numbers: impl Iterator<Item = usize> + Send,
) -> Groups {
    let device = Device::flex();
    let checkpoint = checkpoint(&device);
    let replicas = vec![Replica { checkpoint: &checkpoint, device: &device }; devices];
    let source = Numbers { held: AtomicUsize::new(0), admitted: Mutex::default() };
    let mut groups = Vec::new();
    caption_batches::<_, GenerateError>(&replicas, numbers, &source, config, |batch| {
        let each = batch
            .into_iter()
            .map(|(item, result)| (item, result.map(|captions| format!("{:?}", captions[0]))));
        groups.push(each.collect());
        Ok(())
    })
    .unwrap();
    let admitted = source.admitted.into_inner().unwrap();
    assert!(admitted.is_sorted(), "{admitted:?}");
    groups
}

#[test]
fn items_come_back_in_order_whatever_is_slow_or_fails_on_however_many_devices() {
    let one = run(1, &config(Filling::Full, 1), 0..60);
    let flat: Vec<_> = one.iter().flatten().cloned().collect();
    assert_eq!(flat.iter().map(|(item, _)| *item).collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
    for (item, result) in &flat {
        let expected = match item {
            item if item.is_multiple_of(7) => Some("unreadable"),
            item if item.is_multiple_of(5) => Some("not wanted"),
            _ => None,
        };
        assert_eq!(result.as_ref().err().copied(), expected, "{item}");
    }
    for (devices, workers) in [(1, 4), (3, 4)] {
        let again = run(devices, &config(Filling::Full, workers), 0..60);
        assert_eq!(again.concat(), flat, "{devices} devices, {workers} workers");
    }
}

/// Whatever a run got to before it broke off, what is left lies in the batches that it would have had.
#[test]
fn full_batches_are_those_of_a_run_that_went_on() {
    let photos = |groups: &Groups| {
        let each = groups.iter().map(|group| {
            let photos = group.iter().filter(|(_, result)| result.is_ok());
            photos.map(|(item, _)| *item).collect::<Vec<_>>()
        });
        each.filter(|photos| !photos.is_empty()).collect::<Vec<_>>()
    };
    let whole = photos(&run(1, &config(Filling::Full, 3), 0..60));
    assert!(whole[..whole.len() - 1].iter().all(|batch| batch.len() == 4), "{whole:?}");
    for done in 1..whole.len() {
        let last = *whole[done - 1].last().unwrap();
        // What failed before is tried again.
        let left = (0..60).filter(move |item| *item > last || item.is_multiple_of(7));
        assert_eq!(photos(&run(1, &config(Filling::Full, 2), left)), whole[done..]);
    }
}

#[test]
fn an_error_of_the_emitter_ends_an_endless_walk() {
    let device = Device::flex();
    let checkpoint = checkpoint(&device);
    let source = Numbers { held: AtomicUsize::new(0), admitted: Mutex::default() };
    let replicas = [Replica { checkpoint: &checkpoint, device: &device }];
    let config = config(Filling::Full, 2);
    let error = caption_batches(&replicas, 1.., &source, &config, |_| {
        Err(GenerateError::NotFinite { position: 1 })
    });
    assert!(matches!(error, Err(GenerateError::NotFinite { position: 1 })));
    // No further ahead than there is room for.
    assert!(source.held.load(Ordering::SeqCst) < 64);
}
