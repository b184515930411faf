//! A person's journey in a real browser: log in, choose a password, see the sensor and the MalOp.

#![allow(clippy::expect_used, reason = "a test fails where it stands")]

use std::process::Command;

use lapwing_tests::browser::Browser;
use lapwing_tests::house::require;
use lapwing_tests::platform::{Platform, fresh_program, may_see};

#[test]
fn an_analyst_logs_in_and_sees_the_sensor_and_the_malop() {
    let test = "an_analyst_logs_in_and_sees_the_sensor_and_the_malop";
    let (Some(driver), true) = (require::tool(test, "chromedriver"), may_see(test)) else { return };
    let platform = Platform::start(&[]);
    let sensor = platform.sensor_online();
    let machine = sensor["name"].as_str().expect("a name").to_owned();
    let ready = platform.ready();
    let page = |path: &str| format!("{}{path}", ready["web"].as_str().expect("a page"));
    let first_password = ready["password"].as_str().expect("a first password");

    let browser = Browser::start(&driver, (1280, 900));
    browser.open(&page(""));
    browser.fill("input[autocomplete=username]", "admin");
    browser.fill("input[autocomplete=current-password]", first_password);
    browser.click("form button.main");
    // The first password is good for choosing another one, and for nothing else.
    browser.wait_for("input[autocomplete=new-password]");
    let chosen = "a lapwing cries over the marsh";
    browser.fill("input[autocomplete=current-password]", first_password);
    for field in browser.all("input[autocomplete=new-password]") {
        browser.fill_element(&field, chosen);
    }
    browser.click("main form button.main");
    browser.wait_for_text("MalOps");

    browser.open(&page("sensors"));
    browser.wait_for_text(&machine);
    browser.wait_for_text("Online");

    // The page is open while it happens: the MalOp appears by itself.
    browser.open(&page("malops"));
    let (program, hash) = fresh_program(platform.folder(), "seen-by-eye", "/bin/sleep");
    platform.ctl(&["reputation", "add", "--hash", &hash, "--block"]);
    assert!(Command::new(&program).arg("0.01").status().expect("it runs").success());
    browser.wait_for_text("seen-by-eye");
    browser.click("main a[href*='/malops/']");
    browser.wait_for_text(&hash);
    browser.wait_for_text("private");
    let told = browser.text();
    assert!(told.contains(&machine) && told.contains("root"), "{told}");
    let overflow = browser.run("return document.documentElement.scrollWidth > window.innerWidth");
    assert_eq!(overflow, false, "nothing is cut off at 1280 pixels");
    drop(browser);
    drop(platform.stop());
}
