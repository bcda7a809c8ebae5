use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_what_decodes_encodes_to_the_same_frame(
        kind in 0_u8..12,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut message = vec![kind];
        message.extend(body);
        if let Ok(frame) = Frame::decode(message.into()) {
            prop_assert_eq!(Frame::decode(frame.encode().to_bytes()), Ok(frame));
        }
    }
}
