//! Energy meters supplied by the app.

use std::ffi::c_void;
use std::sync::Arc;

use vaquita_runtime::measure::custom::Custom;
use vaquita_runtime::measure::meter::Reading;

use crate::arguments::reference;
use crate::model::Model;
use crate::status::{Failure, guard};

/// The meter returns the current power, in watts.
pub const VAQUITA_METER_WATTS: i32 = 0;
/// The meter returns a monotonic counter, in joules.
pub const VAQUITA_METER_JOULES: i32 = 1;

/// Reads a meter. Returns NaN or a negative number if it cannot be read, in which case the energy
/// of the answer is unmeasured. It must not unwind.
pub type ReadMeter = Option<unsafe extern "C" fn(user_data: *mut c_void) -> f64>;

/// A callback with its user data.
#[derive(Clone, Copy)]
struct Callback {
    read: unsafe extern "C" fn(user_data: *mut c_void) -> f64,
    user_data: *mut c_void,
}

// SAFETY: vaquita_model_set_meter() documents that the callback runs on threads of the library,
// several at a time.
unsafe impl Send for Callback {}
// SAFETY: as above.
unsafe impl Sync for Callback {}

impl Callback {
    fn read(&self) -> Result<f64, String> {
        // SAFETY: both are valid while the meter is set, as vaquita_model_set_meter() documents.
        let value = unsafe { (self.read)(self.user_data) };
        if value >= 0.0 { Ok(value) } else { Err(format!("the app's meter says {value}")) }
    }

    fn meter(self, counts: bool) -> Custom<impl FnMut() -> Result<Reading, String> + Send> {
        let mut before = None;
        Custom::new("the app's meter", "as the app says", move || {
            let now = self.read()?;
            if !counts {
                return Ok(Reading::Watts(now));
            }
            let since = before.replace(now).map_or(0.0, |before| now - before);
            Ok(Reading::Joules(since))
        })
    }
}

/// Measures the energy in vaquita_stats with the app's own meter, from the next answer on. `unit`
/// is VAQUITA_METER_*. `read` is called every tenth of a second for each generating session, on
/// threads of the library. `read` and `user_data` must stay valid until the model is closed or has
/// another meter, and all answers that began before have ended. Null selects the machine's own
/// meter, if there is one.
///
/// # Safety
/// `model` is null or an open model; `read` and `user_data` as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vaquita_model_set_meter(
    model: *const Model,
    unit: i32,
    read: ReadMeter,
    user_data: *mut c_void,
) -> i32 {
    guard(|| {
        let counts = match unit {
            VAQUITA_METER_WATTS => false,
            VAQUITA_METER_JOULES => true,
            _ => return Err(Failure::argument(format!("unit is {unit}; see VAQUITA_METER_*"))),
        };
        // SAFETY: promised by the caller.
        let model = unsafe { reference(model, "model") }?;
        let callback = read.map(|read| Callback { read, user_data });
        model.inner.set_meter(callback.map(|callback| {
            let make: vaquita_runtime::app::MeterMaker =
                Arc::new(move || Box::new(callback.meter(counts)));
            make
        }));
        Ok(())
    })
}
