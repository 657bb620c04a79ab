//! Fine-tunes the captioner that ships on photos with captions: `cargo run --release --example fine_tune PHOTOS`.

use burn::tensor::Device;
use patchword::train::{Event, Observer, TrainConfig, train};

/// Hears what happens in a run; it could ask for a stop as well.
struct Print;

impl Observer for Print {
    fn event(&mut self, event: &Event) {
        if let Event::Validated { step, validation, samples, .. } = event {
            println!("step {step}: validation loss {:.4}", validation.loss);
            for sample in *samples {
                println!("  {}: {}", sample.path.display(), sample.caption);
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let photos = std::env::args().nth(1).ok_or("usage: fine_tune PHOTOS")?;
    let settings = [format!("data.path={photos:?}"), "output=\"fine-tuned\"".into()];
    let (config, name) = TrainConfig::named("finetune".as_ref(), &settings)?;
    let outcome = train(&config, &name, &Device::flex(), 1, false, &mut Print)?;
    println!("fine-tuned/best: {:?} (loss, step)", outcome.best);
    Ok(())
}
