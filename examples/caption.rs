//! Captions photos: `cargo run --release --example caption -- datasets/photos/dog.jpg`

use std::error::Error;

use patchword::{Captioner, read_photo};

fn main() -> Result<(), Box<dyn Error>> {
    let captioner = Captioner::open("flickr8k")?;
    for path in std::env::args().skip(1) {
        let caption = captioner.caption(&read_photo(&path)?)?;
        println!("{path}\t{}", caption.caption);
        for word in caption.words {
            println!("  {:<12} p {:.2}", word.word, word.probability);
        }
    }
    Ok(())
}
