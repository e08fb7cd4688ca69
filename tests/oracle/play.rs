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
        // Only thousands of new connections are too many.
        let opens_connection = outbound && frame.get(23) == Some(&6) && frame.get(47) == Some(&2);
        let times = if opens_connection && choices.sometimes(2) {
            9000
        } else if choices.sometimes(6) {
            choices.below(96)
        } else {
            1
        };
        for _ in 0..times {
            let outcome = scene.pass(outbound, &frame)?;
            count(outbound, outcome.err().unwrap_or("forward"));
        }
    }
    Ok(())
}
