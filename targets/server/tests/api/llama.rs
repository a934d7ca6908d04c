//! The endpoints of llama.cpp's server.

use serde_json::{Value, json};
use vaquita_server::{Part, ServerOptions};

use crate::client::{MODEL, SHARED, TestServer};

fn complete(body: Value) -> Value {
    let response = SHARED.post("/completion", &body);
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// A prompt with four tokens to follow at temperature 0.
fn ask(prompt: Value) -> Value {
    complete(json!({"prompt": prompt, "n_predict": 4, "temperature": 0}))
}

#[test]
fn prompts_come_in_all_of_llama_cpps_forms() {
    let text = "1 + 1 =";
    let one = ask(json!(text));
    let expected = one["content"].as_str().unwrap();
    let tokens = MODEL.prompter().raw(text).unwrap().tokens;
    for prompt in [json!(tokens), json!({"prompt_string": text}), json!([text]), json!([tokens])] {
        assert_eq!(ask(prompt.clone())["content"], expected, "{prompt}");
    }
    let several = ask(json!([text, tokens, {"prompt_string": text}]));
    let contents: Vec<&Value> =
        several.as_array().unwrap().iter().map(|one| &one["content"]).collect();
    assert_eq!(contents, [expected, expected, expected]);
    assert_eq!(several[2]["index"], 2);
    // Texts and tokens in one prompt.
    let mixed = ask(json!(["1 +", 19, " 1"]));
    let of = |text: &str| MODEL.prompter().tokenizer().encode(text, true).unwrap().len();
    let begun = MODEL.prompter().raw("1 +").unwrap().tokens.len();
    assert_eq!(mixed["tokens_evaluated"].as_u64().unwrap() as usize, begun + 1 + of(" 1"));
    for wrong in [json!([]), json!(7), json!([[]]), json!({"text": "x"}), json!([1, 4_000_000])] {
        let response = SHARED.post("/completion", &json!({"prompt": wrong}));
        assert_eq!(response.status / 100, 4, "{wrong}");
    }
}

#[test]
fn answers_have_llama_cpps_members() {
    let body = json!({
        "prompt": "1 + 1 =", "n_predict": 4, "temperature": 0, "return_tokens": true, "seed": 5,
        "logit_bias": [[7, -1.5], [8, false]],
    });
    let json = complete(body.clone());
    assert_eq!(json["tokens"].as_array().unwrap().len(), 4);
    assert_eq!((&json["stop_type"], &json["truncated"]), (&json!("limit"), &json!(false)));
    let settings = &json["generation_settings"];
    assert_eq!((&settings["seed"], &settings["n_predict"]), (&json!(5), &json!(4)));
    let biases = json!([{"token": 7, "bias": -1.5}, {"token": 8, "bias": null}]);
    assert_eq!(settings["logit_bias"], biases);
    assert_eq!(json["timings"]["predicted_n"], 4);
    for (name, value) in json["timings"].as_object().unwrap() {
        assert!(value.as_f64().is_some_and(|value| value >= 0.0), "{name}: {value}");
    }
    assert_eq!(json["energy"], "unmeasured");
    let fields = json!(["content", "generation_settings/n_predict", "nothing/there"]);
    let mut some = body;
    some["response_fields"] = fields;
    let expected = json!({"content": json["content"], "generation_settings/n_predict": 4});
    assert_eq!(complete(some), expected);
}

#[test]
fn the_end_of_an_answer_is_explained() {
    let text = complete(json!({"prompt": "1 + 1 =", "n_predict": 12, "temperature": 0}));
    let text = text["content"].as_str().unwrap().to_string();
    let stop: String = text.chars().skip(2).take(2).collect();
    let json = complete(json!({
        "prompt": "1 + 1 =", "n_predict": 12, "temperature": 0, "stop": ["never there", stop],
    }));
    assert_eq!((&json["stop_type"], &json["stopping_word"]), (&json!("word"), &json!(stop)));
    let json = complete(json!({"prompt": "x", "n_predict": 3, "ignore_eos": true}));
    let biases = json["generation_settings"]["logit_bias"].as_array().unwrap();
    assert!(!biases.is_empty() && biases.iter().all(|bias| bias["bias"].is_null()));
}

#[test]
fn a_stream_is_the_whole_in_pieces() {
    let body = |more: Value| {
        let mut body = json!({"prompt": "1 + 1 =", "n_predict": 5, "temperature": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let whole = complete(body(json!({"return_tokens": true, "n_probs": 3})));
    let more = json!({
        "stream": true, "n_probs": 3, "return_progress": true, "timings_per_token": true,
    });
    let events = SHARED.post("/completion", &body(more)).events();
    let (last, events) = events.split_last().unwrap();
    let (progress, events): (Vec<&Value>, Vec<&Value>) =
        events.iter().partition(|event| event.get("prompt_progress").is_some());
    assert!(!progress.is_empty());
    assert_eq!((&last["stop"], &last["content"]), (&json!(true), &json!("")));
    let text: String = events.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!(text, whole["content"]);
    let of = |name: &str| -> Vec<Value> {
        events.iter().flat_map(|event| event[name].as_array().unwrap().clone()).collect()
    };
    assert_eq!(json!(of("tokens")), whole["tokens"]);
    assert_eq!(json!(of("completion_probabilities")), whole["completion_probabilities"]);
    assert_eq!(events.len(), of("tokens").len(), "an event for each token");
    assert!(events.iter().all(|event| event["timings"]["prompt_ms"].is_number()));
}

#[test]
fn probabilities_are_the_models_or_those_of_the_draw() {
    let body =
        json!({"prompt": "1 + 1 =", "n_predict": 2, "n_probs": 4, "top_k": 3, "temperature": 1});
    let own = complete(body.clone());
    let first = &own["completion_probabilities"][0];
    assert!(first["logprob"].as_f64().unwrap() <= 0.0);
    assert_eq!(first["top_logprobs"].as_array().unwrap().len(), 4);
    let mut drawn = body;
    (drawn["post_sampling_probs"], drawn["top_p"]) = (json!(true), json!(1));
    let drawn = complete(drawn);
    let first = &drawn["completion_probabilities"][0];
    let odds = first["top_probs"].as_array().unwrap();
    let sum: f64 = odds.iter().map(|one| one["prob"].as_f64().unwrap()).sum();
    assert!(odds.len() <= 3 && (sum - 1.0).abs() < 1e-6, "{first}");
    assert!(first["prob"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_is_not_offered_says_so() {
    for path in ["/embedding", "/v1/embeddings", "/rerank", "/v1/reranking", "/slots/0?action=save"]
    {
        let response = SHARED.post(path, &json!({}));
        assert_eq!(response.status, 501, "{path}");
        assert!(!response.json()["error"]["message"].as_str().unwrap().is_empty());
    }
    // The reference model was not trained to fill in the middle.
    let response = SHARED.post("/infill", &json!({"input_prefix": "a", "input_suffix": "b"}));
    assert_eq!(response.status, 501);
    let wrong =
        json!({"input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": "x"}]});
    assert_eq!(SHARED.post("/infill", &wrong).status, 400);
}

#[test]
fn requests_name_slots_and_a_slot_can_be_erased() {
    let server = TestServer::new(ServerOptions::default());
    let ask = |slot: i64| {
        let body = json!({
            "prompt": "One day a donkey met a kitten", "n_predict": 2, "seed": 1, "id_slot": slot,
        });
        let response = server.post("/completion", &body);
        assert_eq!(response.status, 200, "{response:?}");
        let json = response.json();
        (json["content"].clone(), json["timings"]["cache_n"].as_u64().unwrap())
    };
    let (text, none) = ask(1);
    assert_eq!((ask(0), ask(-1), none), ((text.clone(), 0), (text.clone(), 0), 0));
    assert!(ask(1).1 > 0 && ask(-1).1 > 0);
    // llama.cpp's users send no body.
    let erased = server.send("POST", "/slots/1?action=erase", &[], "");
    assert_eq!((erased.status, &erased.json()["id_slot"]), (200, &json!(1)));
    assert!(erased.json()["n_erased"].as_u64() > Some(0));
    assert_eq!(ask(1), (text, 0));
    for (path, status) in [
        ("/slots/4?action=erase", 400),
        ("/slots/-1?action=erase", 400),
        ("/slots/x?action=erase", 400),
        ("/slots/1?action=leave", 400),
        ("/slots/1", 400),
        ("/slots/1?action=save", 501),
        ("/slots/1?action=restore", 501),
    ] {
        assert_eq!(server.post(path, &json!({"filename": "a"})).status, status, "{path}");
    }
    let body = json!({"prompt": "x", "n_predict": 1, "id_slot": 4});
    assert_eq!(server.post("/completion", &body).status, 422);
}

#[test]
fn parts_can_be_left_out() {
    let without = vec![Part::Page, Part::Slots, Part::Metrics];
    let server = TestServer::new(ServerOptions { without, ..ServerOptions::default() });
    assert_eq!(server.get("/").status, 404);
    assert_eq!(server.get("/slots").status, 501);
    assert_eq!(server.get("/metrics").status, 501);
    let props = server.get("/props").json();
    assert_eq!(
        (&props["endpoint_slots"], &props["model_path"]),
        (&json!(false), &json!("reference"))
    );
    let props = SHARED.get("/props").json();
    assert_eq!(props["default_generation_settings"]["params"]["seed"], -1);
    assert_eq!(SHARED.get("/slots").json().as_array().unwrap().len(), 4);
}

#[test]
fn a_prompt_that_is_not_to_be_cached_is_neither_found_nor_kept() {
    let server = TestServer::new(ServerOptions::default());
    let ask = |cache: Option<bool>| {
        let mut body =
            json!({"prompt": "One day a donkey met a kitten", "n_predict": 2, "seed": 1});
        if let Some(cache) = cache {
            body["cache_prompt"] = cache.into();
        }
        let json = server.post("/completion", &body).json();
        (json["content"].clone(), json["timings"]["cache_n"].as_u64().unwrap())
    };
    let (first, none) = ask(Some(false));
    assert_eq!((ask(None).1, none), (0, 0), "nothing was kept");
    let (again, known) = ask(None);
    assert!(known > 0 && again == first);
    assert_eq!(ask(Some(false)), (first, 0));
    let body = json!({
        "messages": [{"role": "user", "content": "1 + 1 = ?"}], "max_tokens": 1, "cache_prompt": false,
    });
    for _ in 0..2 {
        let json = server.post("/v1/chat/completions", &body).json();
        assert_eq!(json["usage"]["prompt_cache_hit_tokens"], 0);
        let why = json["timings"]["cache"].to_string();
        assert!(why.contains("wants nothing cached"), "{why}");
    }
}

#[test]
fn prompts_are_told_to_those_who_ask() {
    let messages = json!([{"role": "user", "content": "Is this seen?"}]);
    let mut body = json!({"messages": messages, "max_tokens": 1});
    assert!(SHARED.post("/v1/chat/completions", &body).json().get("__verbose").is_none());
    body["verbose"] = true.into();
    let json = SHARED.post("/v1/chat/completions", &body).json();
    assert!(json["__verbose"]["prompt"].as_str().unwrap().contains("Is this seen?"));
    let closed = json!({"messages": messages, "add_generation_prompt": false});
    let closed = SHARED.post("/apply-template", &closed).json();
    let open = SHARED.post("/apply-template", &json!({"messages": messages})).json();
    let (closed, open) = (closed["prompt"].as_str().unwrap(), open["prompt"].as_str().unwrap());
    assert!(open.starts_with(closed) && open.len() > closed.len(), "{open}\n{closed}");
}
