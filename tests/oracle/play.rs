//! What is done with the bytes that proptest, or a fuzzer, makes: the test and the fuzz
//! target `agreement` share it.

use crate::choices::Choices;
use crate::generate;
use crate::scene::Scene;

/// A scene, and frames in it for as long as there are bytes.
pub(crate) fn play(bytes: &[u8], mut count: impl FnMut(bool, &'static str)) -> Result<(), String> {
    let mut choices = Choices::new(bytes);
    let mut scene = Scene::new(&mut choices)?;
    while !choices.is_empty() {
        let outbound = choices.sometimes(128);
        if choices.sometimes(8) {
            scene.wait(choices.pick(&[1, 7, 1, 7, 30, 64, 1, 599, 600, 100_000, u32::MAX]));
        }
        let frame = generate::frame(&mut choices, &scene, outbound);
        let outcome = scene.pass(outbound, &frame)?;
        count(outbound, outcome.err().unwrap_or("forward"));
        // Only thousands of new connections are too many, of which the last alone counts.
        let opens_connection = outbound && frame.get(23) == Some(&6) && frame.get(47) == Some(&2);
        if opens_connection && outcome.is_ok() && choices.sometimes(16) {
            let mut last = outcome;
            for _ in 0..9000 {
                last = scene.pass(outbound, &frame)?;
            }
            count(outbound, last.err().unwrap_or("forward"));
        } else if choices.sometimes(6) {
            // Only more than 64 broadcasts are too many.
            let is_broadcast_arp =
                frame.starts_with(&[0xff; 6]) && frame.get(12..14) == Some(&[8, 6]);
            let more = if is_broadcast_arp { 64 } else { 0 };
            for _ in 1..more + choices.below(96) {
                let outcome = scene.pass(outbound, &frame)?;
                count(outbound, outcome.err().unwrap_or("forward"));
            }
        }
    }
    Ok(())
}
