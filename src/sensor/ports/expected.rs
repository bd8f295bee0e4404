//! Which backend a port will be captured by, as far as that can be known before it is opened.

use crate::sensor::backends::Backend;

/// The backend that `asked` comes to on this port, and why.
pub(super) fn backend(asked: Backend, interface: &str, take_traffic: bool) -> (Backend, String) {
    match asked {
        Backend::Auto => imp::auto(interface, take_traffic),
        named => (named, "it is asked for by name".to_owned()),
    }
}

#[cfg(feature = "af-xdp")]
mod imp {
    use super::Backend;
    use crate::capture::CaptureError;
    use crate::capture::af_xdp::{AfXdp, Config};

    pub(super) fn auto(interface: &str, take_traffic: bool) -> (Backend, String) {
        let config = Config::builder().take_traffic(take_traffic).build();
        let Ok(config) = config else { return (Backend::AfPacket, String::new()) };
        match AfXdp::check(interface, &config) {
            Ok(()) => {
                let why = "nothing stands against it, unless the driver runs no XDP programs";
                (Backend::AfXdp, why.to_owned())
            }
            Err(CaptureError::Live { what, error, .. }) => {
                (Backend::AfPacket, format!("{what}: {error}"))
            }
            Err(other) => (Backend::AfPacket, other.to_string()),
        }
    }
}

#[cfg(not(feature = "af-xdp"))]
mod imp {
    use super::Backend;

    pub(super) fn auto(_: &str, _: bool) -> (Backend, String) {
        (Backend::AfPacket, "this build has no AF_XDP".to_owned())
    }
}
