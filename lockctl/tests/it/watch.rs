//! The live view.

use crate::fixture::{Place, finish};

#[test]
fn view_is_not_for_pipes() {
    let place = Place::redis();
    finish(&mut place.lockctl("watch")).failed_with(64, "needs a terminal");
}
