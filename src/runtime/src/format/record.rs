//! Fixed-width little-endian records: each is defined once, and the reader and the writer are both made from that
//! definition. The declared size must equal the sum of the fields, so a record has no holes.

/// A field of a record.
pub(crate) trait Field: Sized {
    const BYTES: usize;
    fn read(bytes: &[u8], at: &mut usize) -> Self;
    fn write(&self, bytes: &mut [u8], at: &mut usize);
}

macro_rules! number_field {
    ($($number:ty),*) => {$(
        impl Field for $number {
            const BYTES: usize = size_of::<$number>();
            fn read(bytes: &[u8], at: &mut usize) -> Self {
                let mut value = [0; size_of::<$number>()];
                value.copy_from_slice(&bytes[*at..*at + Self::BYTES]);
                *at += Self::BYTES;
                <$number>::from_le_bytes(value)
            }
            fn write(&self, bytes: &mut [u8], at: &mut usize) {
                bytes[*at..*at + Self::BYTES].copy_from_slice(&self.to_le_bytes());
                *at += Self::BYTES;
            }
        }
    )*};
}
number_field!(u8, u16, u32, u64, f32);

impl<const N: usize> Field for [u8; N] {
    const BYTES: usize = N;
    fn read(bytes: &[u8], at: &mut usize) -> Self {
        let mut value = [0; N];
        value.copy_from_slice(&bytes[*at..*at + N]);
        *at += N;
        value
    }
    fn write(&self, bytes: &mut [u8], at: &mut usize) {
        bytes[*at..*at + N].copy_from_slice(self);
        *at += N;
    }
}

macro_rules! record {
    ($(#[$about:meta])* $name:ident: $bytes:literal bytes { $($(#[$field_about:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name { $($(#[$field_about])* pub $field: $kind,)* }

        impl $name {
            /// Size in the file.
            pub const BYTES: usize = $bytes;

            /// The record in its file form.
            pub fn to_bytes(&self) -> [u8; $bytes] {
                let mut bytes = [0; $bytes];
                let mut at = 0;
                $($crate::format::record::Field::write(&self.$field, &mut bytes, &mut at);)*
                bytes
            }

            /// The record from its file form; values are not checked.
            ///
            /// # Panics
            /// If there are fewer than [`Self::BYTES`] bytes.
            pub fn from_bytes(bytes: &[u8]) -> Self {
                let mut at = 0;
                $(let $field = $crate::format::record::Field::read(bytes, &mut at);)*
                $name { $($field,)* }
            }
        }

        const _: () = assert!(0 $(+ <$kind as $crate::format::record::Field>::BYTES)* == $bytes);
    };
}
pub(crate) use record;
