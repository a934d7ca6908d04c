//! Every meter on recordings of machines (tests/meters): what it adds up, and what it says where it cannot.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vaquita_runtime::doctor::Report;
use vaquita_runtime::host::Host;
use vaquita_runtime::measure::cost::MeterInfo;
use vaquita_runtime::measure::custom::{Assumed, Custom};
use vaquita_runtime::measure::external::External;
use vaquita_runtime::measure::meter::{Meter, MeterError, MeterKind, Meters, Reading};
use vaquita_runtime::measure::sampler::MeterSampler;
use vaquita_runtime::measure::thermal::{self, Throttling};

fn host(name: &str) -> Arc<Host> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/meters").join(name);
    let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
    Arc::new(Host::recorded(&text).unwrap())
}

fn meter(host: &Arc<Host>) -> Box<dyn Meter> {
    Meters::find(host).into_best().unwrap_or_else(|reason| panic!("{reason}"))
}

/// Joules at each moment of a recording after the first, as long as the meter is there.
fn joules(name: &str) -> (Vec<f64>, MeterSampler) {
    let host = host(name);
    let sampler = MeterSampler::start(Some(meter(&host)), host);
    (std::iter::from_fn(|| sampler.joules()).take(9).collect(), sampler)
}

fn refusal(name: &str) -> String {
    let meters = Meters::find(&host(name));
    assert!(meters.found.is_empty());
    meters.into_best().err().expect("no meter")
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64]) {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(near), "{found:?}");
}

#[test]
fn rapl_adds_packages_and_memory_across_the_wrap_until_it_vanishes() {
    let (found, sampler) = joules("rapl");
    // 50 mJ + 10 mJ; then 300 mJ over the wrap at 1 J, + 10 mJ. Cores and psys are not counted.
    assert_near(&found, &[0.06, 0.37]);
    let error = sampler.failure().unwrap().to_string();
    assert!(error.contains("intel-rapl:0/energy_uj"), "{error}");
    assert_eq!(sampler.joules(), None, "a meter that went away leaves no figure");
    assert!(meter(&host("rapl")).scope().contains("packages and memory"));
}

/// Counts its own readings, a joule each.
struct Counting(Arc<AtomicU64>);

impl Meter for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn scope(&self) -> &str {
        "itself"
    }

    fn read(&mut self) -> Result<Reading, MeterError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Reading::Joules(1.0))
    }

    fn interval(&self) -> Duration {
        Duration::from_micros(50)
    }
}

#[test]
fn nothing_is_read_after_the_last_sample() {
    for _ in 0..20 {
        let readings = Arc::new(AtomicU64::new(0));
        let meter = Box::new(Counting(readings.clone()));
        let sampler = MeterSampler::start(Some(meter), Arc::new(Host::live()));
        std::thread::sleep(Duration::from_millis(2));
        let joules = sampler.finish().joules.unwrap();
        // The first reading is where the count begins.
        assert_eq!(joules, (readings.load(Ordering::SeqCst) - 1) as f64);
    }
}

#[test]
fn rapl_says_who_may_read_it_and_which_file_is_garbage() {
    let denied = refusal("rapl-denied");
    assert!(denied.contains("root only") && denied.contains("chmod"), "{denied}");
    let garbage = refusal("rapl-garbage");
    assert!(garbage.contains("energy_uj is \"lots\"; allowed: microjoules"), "{garbage}");
}

#[test]
fn a_jetson_with_an_input_rail_is_measured_there() {
    let (found, sampler) = joules("jetson-orin-nano");
    // 5 W to 10 W in 2 s; 10 W to 14.7 W in 1 s; then a current that is none.
    assert_near(&found, &[15.0, 27.35]);
    let error = sampler.failure().unwrap().to_string();
    assert!(error.contains("curr1_input is \"-3\"; allowed: milliamperes of VDD_IN"), "{error}");
    assert_eq!(meter(&host("jetson-orin-nano")).scope(), "whole module (VDD_IN)");
}

#[test]
fn a_jetson_without_one_is_the_sum_of_its_rails() {
    let mut meter = meter(&host("jetson-agx-orin"));
    // 4 W + 2 W + 4 W; VDDQ hangs behind VIN_SYS_5V0.
    assert_eq!(meter.read().unwrap(), Reading::Watts(10.0));
    assert_eq!(meter.scope(), "module, sum of VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0");
    let unknown = refusal("ina3221-unknown");
    assert!(unknown.contains("rail_a, rail_b"), "{unknown}");
}

#[test]
fn a_raspberry_pi_5_is_the_sum_of_its_rails() {
    let (found, sampler) = joules("raspberry-pi-5");
    // 0.037 + 0.33 + 0.8 = 1.167 W to 4.367 W in 1 s; then vcgencmd fails in words.
    assert_near(&found, &[2.767]);
    assert!(sampler.failure().unwrap().to_string().contains("VCHI initialization failed"));
    let missing = refusal("raspberry-pi-5-no-tools");
    assert!(missing.contains("install raspi-utils"), "{missing}");
    assert!(refusal("raspberry-pi-4").contains("no energy meter"));
}

#[test]
fn a_battery_measures_while_the_machine_runs_from_it() {
    let (found, sampler) = joules("laptop");
    assert_near(&found, &[100.0]); // 8 W to 12 W in 10 s; then it is charged
    assert!(sampler.failure().unwrap().to_string().contains("unplug"));
    // -0.5 A at 4 V
    assert_eq!(meter(&host("phone")).read().unwrap(), Reading::Watts(2.0));
    assert!(refusal("plugged-in").contains("unplug"));
}

#[test]
fn kinds_are_found_by_name_only_where_they_are() {
    for kind in MeterKind::ALL {
        assert_eq!(MeterKind::from_name(kind.name()), Some(kind));
    }
    assert!(MeterKind::Rapl.find(&host("laptop")).is_none());
    assert!(MeterKind::Battery.find(&host("laptop")).is_some_and(|found| found.is_ok()));
}

#[test]
fn heat_and_throttling_are_told_where_the_machine_says() {
    let pi = host("raspberry-pi-5");
    let before = Throttling::read(&pi);
    let cool = thermal::read(&pi, before);
    assert_eq!((cool.temperature_c, cool.throttled), (Some(61.4), Some(false)));
    pi.advance();
    assert_eq!(thermal::read(&pi, before).throttled, Some(true));
    pi.advance();
    assert_eq!(thermal::read(&pi, before).throttled, None, "what is not said is not made up");
    let jetson = host("jetson-orin-nano");
    assert_eq!(thermal::temperature(&jetson), Some(48.25), "a zone that is off does not count");
}

#[test]
fn the_doctor_tells_clusters_limits_and_why_a_meter_does_not_work() {
    let report = Report::of(&host("board"));
    assert_eq!(report.board.as_deref(), Some("Radxa ROCK 5B"));
    assert_eq!(report.processor, None, "what is not said is not made up");
    let clusters: Vec<_> = report.clusters.iter().map(|c| (c.cores.clone(), c.max_khz)).collect();
    let expected = [(vec![4, 5, 6, 7], Some(2_400_000)), (vec![0, 1, 2, 3], Some(1_800_000))];
    assert_eq!(clusters, expected);
    assert_eq!(report.decode_cores, [4, 5, 6, 7]);
    assert_eq!(report.memory_bytes, Some(8 << 30));
    assert_eq!(report.memory_limit_bytes, Some(4 << 30));
    assert_eq!(report.memory_available_bytes, Some(3 << 30));
    assert_eq!(report.temperature_c, Some(41.5));
    assert!(report.meters.is_empty() && report.meter_problems[0].contains("unplug"));
    let jetson = Report::of(&host("jetson-orin-nano"));
    assert_eq!((jetson.meters[0].meter.as_str(), jetson.memory_bytes), ("INA3221", None));
}

fn lines(text: &'static str) -> Result<External, String> {
    // A pipe that stays open behind the lines, as a meter's does.
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
    if text.ends_with('\n') {
        std::mem::forget(writer);
    }
    External::lines("external", reader).map_err(|error| error.to_string())
}

#[test]
fn an_external_meter_gives_out_power_or_a_counter_in_lines() {
    let mut power = lines("# UM25C\nname UM25C\nscope whole board\n\n7.25 W\n").unwrap();
    assert_eq!((power.name(), power.scope()), ("UM25C", "whole board"));
    assert_eq!(power.read().unwrap(), Reading::Watts(7.25));
    let escaped = lines("name \u{1b}[31mred\u{7}\n1 W\n").unwrap();
    assert_eq!(escaped.name(), "[31mred");
    let mut counter = lines("100.5 J\n").unwrap();
    assert_eq!(counter.read().unwrap(), Reading::Joules(0.0), "only what came since");
}

#[test]
fn a_value_of_an_external_meter_is_new_once() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut say = |line: &[u8]| std::io::Write::write_all(&mut writer, line).unwrap();
    say(b"5 W\n");
    let meter = Box::new(External::lines("external", reader).unwrap());
    let sampler = MeterSampler::start(Some(meter), Arc::new(Host::live()));
    let first = sampler.mark();
    let second = sampler.mark();
    assert!(!second.since(&first).fresh && second.joules.is_some());
    say(b"5 W\n");
    while sampler.values() == second.values {
        std::thread::yield_now();
    }
    assert!(sampler.mark().since(&second).fresh);
}

#[test]
fn an_external_meter_that_ends_or_talks_nonsense_is_refused() {
    let nonsense = lines("volts: five\n").err().unwrap();
    assert!(nonsense.contains("it says \"volts: five\"; allowed: 7.31 W"), "{nonsense}");
    for text in ["-1 W\n", "NaN W\n", "7 kW\n", "inf J\n"] {
        assert!(lines(text).is_err(), "{text}");
    }
    let silent = External::lines("x", Cursor::new("")).err().unwrap().to_string();
    assert!(silent.contains("no more lines"), "{silent}");
    let failed = External::command("exit 3").err().unwrap().to_string();
    assert!(failed.contains("no more lines"), "{failed}");
}

#[test]
fn a_command_is_a_meter_and_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let line = format!("echo 5 W; echo $$ > {}; sleep 100 & wait", pid.display());
    let mut meter = External::command(&line).unwrap();
    assert_eq!(meter.read().unwrap(), Reading::Watts(5.0));
    while std::fs::read_to_string(&pid).unwrap_or_default().trim().is_empty() {
        std::thread::yield_now();
    }
    drop(meter);
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}

#[test]
fn a_closure_is_a_meter_and_a_stated_power_is_marked() {
    let mut readings = [Ok(Reading::Watts(2.0)), Err("gone".into()), Ok(Reading::Joules(-1.0))];
    let mut at = 0;
    let mut custom = Custom::new("app", "phone", || {
        at += 1;
        std::mem::replace(&mut readings[at - 1], Err(String::new()))
    });
    assert_eq!(custom.read().unwrap(), Reading::Watts(2.0));
    assert_eq!(custom.read().unwrap_err().to_string(), "app: gone");
    assert!(custom.read().unwrap_err().to_string().contains("it says -1"));

    let assumed = Assumed::new(6.5).unwrap();
    assert!(MeterInfo::of(&assumed).estimate && assumed.scope().contains("as stated"));
    assert!(Assumed::new(0.0).is_none() && Assumed::new(f64::NAN).is_none());
}
