"""The page in a browser: whole flows by keyboard, hostile answers, broken connections, other languages, accessibility.

Usage: browser.py UNPACKED [--axe FILE] [--browser PROGRAM] [--only NAME], with a folder written by the example `unpack`.
Every test has a browser profile and a server of its own, and fails on any error of the page, any report of its
Content-Security-Policy, and any request to another origin.
"""

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

from playwright.sync_api import expect

import answers
import visit as visiting
from visit import answer, tab_to, test, visit


@test
def a_conversation_by_keyboard():
    with visit() as v:
        page = v.open()
        expect(page.locator("#box")).to_be_focused()
        page.keyboard.type("What is a vaquita?")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("Be brief.")
        page.keyboard.press("Enter")
        v.wait()
        expect(page.locator(".question")).to_have_text("What is a vaquita?\nBe brief.")
        expect(answer(page).locator("h3")).to_have_text("The vaquita")

        # Reasoning is folded, with its seconds; a key unfolds it, rendered.
        summary = answer(page).locator(".reasoning summary")
        expect(summary).to_contain_text(re.compile(r"Thought for [\d.]+ s"))
        expect(answer(page).locator(".reasoning .prose")).not_to_be_visible()
        summary.focus()
        page.keyboard.press("Enter")
        expect(answer(page).locator(".reasoning strong")).to_have_text("vaquitas")
        expect(answer(page).locator(".reasoning li")).to_have_count(2)

        # Another answer is a branch.
        tab_to(page, "button[aria-label='Answer again']")
        page.keyboard.press("Enter")
        v.wait()
        expect(answer(page).locator(".branches")).to_contain_text("2 of 2")
        answer(page).locator("[data-branch=previous]").focus()
        page.keyboard.press("Enter")
        expect(answer(page).locator(".branches")).to_contain_text("1 of 2")
        # The button that goes no further hands the focus to its neighbour.
        expect(answer(page).locator("[data-branch=next]")).to_be_focused()

        # So is another question.
        page.locator(".message.user button[aria-label='Edit the question']").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Control+A")
        page.keyboard.type("And a dolphin?")
        page.keyboard.press("Enter")
        v.wait()
        expect(page.locator(".question")).to_have_text("And a dolphin?")
        expect(page.locator(".message.user .branches")).to_contain_text("2 of 2")
        page.locator(".message.user [data-branch=previous]").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".question")).to_have_text("What is a vaquita?\nBe brief.")
        expect(answer(page).locator(".branches")).to_contain_text("2 of 2")
        assert len(v.stub.requests) == 3

        # Escape leaves the editor without a trace.
        page.locator(".message.user button[aria-label='Edit the question']").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        expect(page.locator(".question")).to_have_count(1)
        assert len(v.stub.requests) == 3


@test
def an_answer_is_stopped():
    with visit() as v:
        page = v.open()
        v.ask("slow 500", wait=False)
        expect(answer(page)).to_contain_text("word5")
        page.keyboard.press("Escape")
        v.wait()
        expect(answer(page).locator(".failure span")).to_have_text("Stopped.")
        (stream,) = v.stub.streams.values()
        deadline = time.time() + 5
        while not stream.ended and time.time() < deadline:
            page.wait_for_timeout(50)
        assert stream.stopped and stream.ended
        assert "word499" not in answer(page).inner_text()
        # What arrived is part of the conversation.
        v.ask("Hello")
        sent = v.stub.requests[-1]["messages"]
        assert [m["role"] for m in sent] == ["user", "assistant", "user"] and sent[1]["content"].startswith("word0 ")


@test
def reasoning_is_sent_back_and_shown_while_it_is_written():
    with visit() as v:
        page = v.open()
        v.ask("think", wait=False)
        expect(answer(page).locator(".reasoning summary")).to_contain_text("Thinking for")
        expect(answer(page).locator(".glimpse")).to_contain_text("Thought 9")
        answer(page).locator(".reasoning summary").click()
        expect(answer(page).locator(".reasoning .prose")).to_contain_text("Thought 20.")
        # "Answer now" ends it.
        answer(page).get_by_role("button", name="Answer now").click()
        v.wait()
        expect(answer(page).locator(".answer")).to_have_text("Answered.")
        v.ask("Hello")
        assert v.stub.requests[-1]["messages"][1]["reasoning_content"].startswith("Thought 0. ")


@test
def queue_and_prompt_progress_are_shown():
    with visit() as v:
        page = v.open()
        page.evaluate(
            """() => {
                window.seen = new Set();
                new MutationObserver(() => document.querySelectorAll('.status:not([hidden])').forEach(e => seen.add(e.innerText)))
                    .observe(document.getElementById('messages'), { subtree: true, childList: true, characterData: true });
            }"""
        )
        v.ask("queue")
        seen = "\n".join(page.evaluate("[...window.seen]"))
        for words in ("3 requests are ahead of yours", "about 40 s", "1 request is ahead of yours"):
            assert words in seen, (words, seen)
        assert "Reading the prompt: 300 of 1,000 tokens" in seen and "96 from the cache" in seen and "about 7 s" in seen, seen
        expect(answer(page).locator(".status")).to_be_hidden()
        expect(answer(page).locator(".answer")).to_have_text("At last.")


@test
def figures_are_those_of_the_api():
    with visit() as v:
        page = v.open()
        v.ask("Hello")
        expect(answer(page).locator(".cost summary")).to_have_text("10 tokens/s · 120 tokens · 0.43 J per token")
        answer(page).locator(".cost summary").click()
        rows = dict(zip(answer(page).locator("dt").all_inner_texts(), answer(page).locator("dd").all_inner_texts()))
        assert rows == {
            "Prompt": "128 tokens, 96 from the cache",
            "Reading": "80 tokens/s for 0 s",
            "Answer": "120 tokens",
            "Reasoning": "40 tokens",
            "Writing": "10 tokens/s for 12 s",
            "Energy": "51.6 J, 0.43 J per token rapl",
            "Experts": "123 MB read from flash, 90 % found in memory",
            "Context": "248 of 4,096",
            "Model": "reference-e4",
        }, rows
        v.ask("unmeasured")
        expect(answer(page).locator(".cost summary")).to_contain_text("energy unmeasured")
        v.ask("length")
        expect(answer(page).locator(".failure")).to_have_text("The answer reached its maximum length.")


@test
def markdown_is_rendered():
    with visit() as v:
        page = v.open()
        v.ask("Hello")
        written = answer(page).locator(".answer")
        assert written.locator("math").count() == 2
        assert written.locator("table td").all_inner_texts() == ["length", "1.5 m", "known since", "1958"]
        expect(written.locator("td").nth(1)).to_have_css("text-align", "right")
        expect(written.locator("ol > li")).to_have_count(2)
        expect(written.locator("blockquote")).to_have_text("There are few left.")
        link = written.locator("a")
        assert link.get_attribute("href") == "https://example.org/list" and link.get_attribute("target") == "_blank"
        assert "noopener" in link.get_attribute("rel") and "noreferrer" in link.get_attribute("rel")
        expect(written).to_contain_text("It costs $5 and $6. Done.")
        blocks = re.findall(r"```\w+\n(.*?)\n```", answers.MARKDOWN, re.S)
        assert written.locator("pre").evaluate_all("all => all.map(e => e.textContent)") == blocks
        assert written.locator("pre .keyword").count() > 5
        written.locator(".code button").first.click()
        expect(written.locator(".code button").first).to_contain_text("Copied")


@test
def colours_change_no_character_of_code():
    with visit() as v:
        page = v.open()
        v.ask("snippets")
        blocks = answer(page).locator("pre").evaluate_all("all => all.map(e => e.textContent)")
        assert blocks == list(answers.SNIPPETS.values())
        coloured = answer(page).locator(".code:has(pre span)").count()
        assert coloured == len(answers.SNIPPETS) - 2, coloured


@test
def hostile_answers_do_nothing():
    # Addresses that the page shows, it never requests; every violation of its policy would be a report.
    assert len(answers.HOSTILE) >= 40
    inside = "#messages :is(script, iframe, img, object, embed, video, audio, link, style, base, meta, input, noscript)"
    with visit() as v:
        page = v.open()
        targets = []
        for i, text in enumerate(answers.HOSTILE):
            v.ask(f"hostile {i} thought")
            answer(page).locator(".reasoning summary").click()
            expect(answer(page).locator(".reasoning .prose")).not_to_be_empty()
            assert page.locator(inside).count() == 0, text
            attributes = page.evaluate(
                """() => [...document.querySelectorAll('#messages *')].flatMap(e => [...e.attributes])
                    .filter(a => /^on/.test(a.name) || a.name === 'src' || /javascript:|data:text/i.test(a.value) && a.name !== 'title')
                    .map(a => `${a.name}=${a.value}`)"""
            )
            assert attributes == [], (text, attributes)
            links = answer(page).locator("a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
            assert all(re.match(r"https?:|mailto:", link) for link in links), (text, links)
            targets += links
            shown = answer(page).locator(".answer").inner_text()
            if i == 0:
                assert shown == text, "HTML is shown as it was written"
            if text.startswith("![leak](https"):
                assert shown == "Image “leak” at leak.example", shown
        assert targets
        page.wait_for_timeout(300)
        assert page.evaluate("window.pwned") is None
        assert page.locator("#composer").count() == 1 and page.locator("#box").count() == 1
        expect(page.locator("#messages h1")).to_have_count(0)
        page.reload()
        expect(page.locator(".answer").last).to_contain_text("Outside")
        assert page.evaluate("window.pwned") is None


@test
def an_image_within_the_text_is_shown_when_asked():
    with visit() as v:
        page = v.open()
        v.ask("picture")
        assert page.locator("#messages img").count() == 0
        answer(page).get_by_role("button", name="Show image “A dot”").click()
        picture = answer(page).get_by_role("img", name="A dot")
        expect(picture).to_be_visible()
        assert picture.evaluate("e => e.decode().then(() => e.naturalWidth)") == 1


@test
def a_conversation_is_deleted_while_it_is_answered():
    with visit() as v:
        page = v.open()
        v.ask("slow 300", wait=False)
        expect(answer(page)).to_contain_text("word5")
        page.get_by_role("button", name="Options for “slow 300”").click()
        page.get_by_role("button", name="Delete").click()
        expect(page.locator("#greeting")).to_be_visible()
        page.wait_for_timeout(1500)
        left = page.evaluate(
            """() => new Promise(resolve => {
                indexedDB.open('vaquita').onsuccess = event => {
                    const asked = event.target.result.transaction('messages').objectStore('messages').count();
                    asked.onsuccess = () => resolve(asked.result);
                };
            })"""
        )
        assert left == 0, left


@test
def a_reload_in_mid_answer_goes_on():
    with visit() as v:
        page = v.open()
        v.ask("slow 120", wait=False)
        expect(answer(page)).to_contain_text("word30")
        page.reload()
        expect(answer(page)).to_contain_text("word119", timeout=20_000)
        v.wait()
        words = answer(page).locator(".answer").inner_text().split()
        assert words == [f"word{i}" for i in range(120)], words
        assert len(v.stub.requests) == 1 and any("/v1/stream?" in path for path in v.stub.paths)


@test
def a_reload_after_the_server_forgot_keeps_what_arrived():
    with visit() as v:
        v.expected = ("404",)
        page = v.open()
        v.ask("slow 200", wait=False)
        expect(answer(page)).to_contain_text("word20")
        page.evaluate("dispatchEvent(new Event('pagehide'))")
        page.wait_for_timeout(200)
        v.stub.streams.clear()
        page.reload()
        expect(answer(page).locator(".failure")).to_contain_text("The connection broke off")
        expect(answer(page).locator(".answer")).to_contain_text("word15")
        answer(page).locator(".failure button").click()
        expect(answer(page).locator(".branches")).to_contain_text("2 of 2")
        page.keyboard.press("Escape")


@test
def a_lost_connection_goes_on():
    with visit() as v:
        v.expected = ("ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION")
        page = v.open()
        v.ask("drop")
        pieces = answer(page).locator(".answer").inner_text().split()
        assert pieces == [word for i in range(30) for word in (f"piece{i}", "“ü”")], pieces
        assert len(v.stub.requests) == 1


@test
def errors_say_what_to_do():
    with visit() as v:
        v.expected = ("503", "400")
        page = v.open()
        v.ask("busy")
        expect(answer(page).get_by_role("alert").locator("span")).to_have_text("The server is busy. Try again in 7 s.")
        v.ask("too long")
        expect(answer(page).get_by_role("alert").locator("span")).to_have_text("the prompt has 5000 tokens, the context 4096")
        v.ask("broken")
        expect(answer(page).locator(".answer")).to_have_text("Half of an")
        expect(answer(page).get_by_role("alert").locator("span")).to_have_text("the model's file cannot be read")


@test
def a_loading_server_is_waited_for():
    with visit() as v:
        v.expected = ("503",)
        v.stub.loading = True
        v.page.goto(v.address)
        expect(v.page.locator("#model")).to_have_text("The model is loading …")
        v.stub.loading = False
        expect(v.page.locator("#model")).to_have_text("reference-e4")


@test
def a_key_is_asked_for_and_forgotten_with_the_tab():
    with visit() as v:
        v.expected = ("401",)
        v.stub.key = "secret-key"
        v.page.goto(v.address)
        v.page.locator("#field-key").fill("secret-key")
        v.page.keyboard.press("Enter")
        expect(v.page.locator("#model")).to_have_text("reference-e4")
        v.ask("Hello")
        expect(answer(v.page).locator("h3")).to_have_text("The vaquita")
        assert "secret-key" not in v.page.evaluate("JSON.stringify(localStorage)")
        assert v.page.evaluate("sessionStorage.getItem('vaquita-key')") == "secret-key"


@test
def settings_are_fields_of_the_request():
    with visit() as v:
        page = v.open()
        v.ask("Hello")
        plain = v.stub.requests[-1]
        for name in ("temperature", "top_p", "max_tokens", "seed", "thinking", "reasoning_effort", "response_format"):
            assert name not in plain
        assert plain["stream"] and plain["stream_options"] == {"include_usage": True} and plain["return_progress"]

        page.get_by_role("button", name="Settings").click()
        for label, value in {"System text": "Be kind.", "Temperature": "0.7", "Top-p": "0.9", "Maximum length": "64", "Seed": "7"}.items():
            page.get_by_label(label, exact=True).fill(value)
        page.get_by_label("JSON schema").fill("{oops")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("dialog")).to_be_visible()  # a schema that is none is refused
        page.get_by_label("JSON schema").fill('{"type": "object"}')
        page.get_by_role("button", name="Save").click()
        expect(page.locator("dialog")).to_have_count(0)
        page.get_by_label("Thinking").select_option("off")
        v.ask("Hello")
        sent = v.stub.requests[-1]
        assert sent["messages"][0] == {"role": "system", "content": "Be kind."}
        assert (sent["temperature"], sent["top_p"], sent["max_tokens"], sent["seed"]) == (0.7, 0.9, 64, 7)
        assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
        assert sent["thinking"] == {"type": "disabled"}
        expect(answer(page).locator(".code .label span").first).to_have_text("json")

        page.reload()
        for choice in ("low", "medium", "high"):
            page.get_by_label("Thinking").select_option(choice)
            v.ask("Hello")
            assert v.stub.requests[-1]["reasoning_effort"] == choice and "thinking" not in v.stub.requests[-1]
        page.get_by_label("Thinking").select_option("on")
        v.ask("Hello")
        assert v.stub.requests[-1]["thinking"] == {"type": "enabled"}


@test
def files_are_attached_with_their_tokens():
    with visit() as v:
        page = v.open()
        with tempfile.TemporaryDirectory() as folder:
            text, binary = Path(folder, "notes.txt"), Path(folder, "image.bin")
            text.write_text("one two ```three``` four\n")
            binary.write_bytes(b"\x00\xff\x00")
            page.set_input_files("#files", [text, binary])
            # The page reads the files after they are chosen.
            expect(page.locator("#notices")).to_contain_text("image.bin is not a text file")
            expect(page.locator("#attached li")).to_have_count(1)
            expect(page.locator("#attached li")).to_contain_text("4 tokens")
        v.ask("Summarize")
        sent = v.stub.requests[-1]["messages"][0]["content"]
        assert sent == "notes.txt:\n````\none two ```three``` four\n\n````\n\nSummarize", sent
        expect(page.locator(".message.user details.file")).to_contain_text("notes.txt")
        expect(page.locator("#attached")).to_be_hidden()


def export(page, name):
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    return Path(download.value.path()).read_text()


def import_file(page, name, text):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.write_text(text)
        page.get_by_role("button", name="Import and export").click()
        page.set_input_files("#import-file", file)
        expect(page.locator(".notice")).to_contain_text("mported")


@test
def history_is_searched_renamed_deleted_and_restored():
    with visit() as v:
        page = v.open()
        v.ask("First question")
        page.get_by_role("button", name="New conversation").first.click()
        v.ask("unmeasured second")
        titles = page.locator("#conversations .title")
        expect(titles).to_have_text(["unmeasured second", "First question"])
        page.locator("#find").fill("cetacean smallest")  # words of the first answer
        expect(titles).to_have_text(["First question"])
        expect(page.locator("#found")).to_have_text("1 conversation")
        page.locator("#find").fill("")
        expect(titles).to_have_count(2)

        page.get_by_role("button", name="Options for “First question”").click()
        page.get_by_label("Title").fill("Porpoises")
        page.keyboard.press("Enter")
        expect(titles).to_have_text(["unmeasured second", "Porpoises"])
        titles.last.click()
        expect(page.locator(".question")).to_have_text("First question")
        page.reload()
        expect(page.locator("#title")).to_have_text("Porpoises")
        expect(page.locator(".question")).to_have_text("First question")

        page.get_by_role("button", name="Options for “Porpoises”").click()
        page.get_by_role("button", name="Delete").click()
        expect(titles).to_have_text(["unmeasured second"])
        expect(page.locator("#greeting")).to_be_visible()
        page.get_by_role("button", name="Undo").click()
        expect(titles).to_have_text(["unmeasured second", "Porpoises"])
        expect(page.locator(".question")).to_have_text("First question")


@test
def export_and_import_are_identical():
    with visit() as v:
        page = v.open()
        v.ask("Hello “world”")
        answer(page).get_by_role("button", name="Answer again").click()
        v.wait()
        page.locator(".message.user").hover()
        page.get_by_role("button", name="Edit the question").click()
        page.keyboard.type(" again")
        page.keyboard.press("Enter")
        v.wait()
        page.get_by_role("button", name="New conversation").first.click()
        v.ask("ما هي الفاكيتا؟")
        page.get_by_role("button", name="Import and export").click()
        first = export(page, "Export everything as JSON")
        assert len(json.loads(first)["conversations"]) == 2

        with visit() as other:
            empty = other.open()
            import_file(empty, "vaquita.json", first)
            expect(empty.locator(".notice")).to_contain_text("2 conversations imported.")
            empty.get_by_role("button", name="Import and export").click()
            assert export(empty, "Export everything as JSON") == first
            # A second import changes nothing.
            import_file(empty, "vaquita.json", first)
            expect(empty.locator(".notice")).to_contain_text("0 conversations imported.")
            # One that differs comes beside the one that is here.
            changed = first.replace("again", "once more")
            import_file(empty, "vaquita.json", changed)
            expect(empty.locator("#conversations .title")).to_have_count(3)
            # Damaged files are refused whole.
            for damage in ("{", "[]", first.replace('"version": 1', '"version": 9'), first.replace('"role": "user"', '"role": "root"')):
                import_file(empty, "vaquita.json", damage)
                expect(empty.locator(".notice")).to_contain_text("Nothing was imported")
            loop = json.loads(first)
            messages = loop["conversations"][0]["messages"]
            messages[0]["parent"] = messages[-1]["id"]
            import_file(empty, "vaquita.json", json.dumps(loop))
            expect(empty.locator(".notice")).to_contain_text("Nothing was imported: the file is damaged.")

        # Markdown keeps the branch that is shown, with its reasoning.
        page.get_by_role("button", name="Options for “Hello “world””").click()
        markdown = export(page, "Export as Markdown")
        assert answers.MARKDOWN in markdown and answers.THOUGHTS in markdown
        import_file(page, "one.md", markdown)
        expect(page.locator("#conversations .title").first).to_have_text("Hello “world”")
        page.locator("#conversations .title").first.click()
        expect(page.locator(".question")).to_have_text("Hello “world” again")
        page.get_by_role("button", name="Options for “Hello “world””").first.click()
        second = export(page, "Export as Markdown")
        word = re.compile(r"<!-- (?:vaquita )?[0-9a-f]{8}")
        assert word.sub("<!-- ", second) == word.sub("<!-- ", markdown)


def long_history(count):
    messages = []
    for i in range(count):
        role = "assistant" if i % 2 else "user"
        message = {"id": f"m{i}", "conversation": "long", "parent": f"m{i - 1}" if i else None, "role": role, "created": i}
        message["content"] = f"Message {i} with **bold** text, `code` and\n\n- a list\n- of two\n" if i % 2 else f"Question {i}"
        if i % 2:
            message |= {"reasoning": "", "state": "done"}
        messages.append(message)
    head = {"id": "long", "title": "Long", "created": 1, "updated": 1, "leaf": f"m{count - 1}", "messages": messages}
    return json.dumps({"format": "vaquita-conversations", "version": 1, "conversations": [head]})


@test
def of_a_long_history_only_what_is_seen_is_drawn():
    with visit() as v:
        page = v.open()
        import_file(page, "vaquita.json", long_history(2000))
        page.locator("#conversations .title").click()
        expect(answer(page)).to_contain_text("Message 1999")
        expect(answer(page)).to_be_in_viewport()
        drawn = page.locator(".message > footer")
        assert drawn.count() <= 40, drawn.count()
        elements = page.evaluate("document.querySelectorAll('#messages *').length")
        assert elements <= 5000, elements
        # All of it is there for the browser's own search, and drawn when it is reached.
        assert "Message 1001 with" in page.locator("#messages").evaluate("e => e.textContent")
        page.evaluate("document.getElementById('transcript').scrollTop = 0")
        expect(page.locator(".question").first).to_have_text("Question 0")
        expect(page.locator(".question").first).to_be_in_viewport()
        expect(page.locator(".answer li").first).to_be_visible()
        assert drawn.count() <= 40, drawn.count()
        page.get_by_role("button", name="To the end").click()
        expect(answer(page)).to_be_in_viewport()


@test
def blocks_of_a_long_answer_are_drawn_once():
    with visit() as v:
        page = v.open()
        v.ask("long", wait=False)
        expect(answer(page)).to_contain_text("Paragraph 40 ")
        page.evaluate("window.first = document.querySelector('.answer .block')")
        v.wait()
        expect(answer(page).locator(".answer p")).to_have_count(1500)
        assert page.evaluate("window.first.isConnected && window.first === document.querySelector('.answer .block')")


@test
def a_screen_reader_hears_sentences():
    with visit() as v:
        page = v.open()
        page.evaluate(
            """() => {
                window.heard = [];
                new MutationObserver(records => records.forEach(r => r.addedNodes.forEach(n => heard.push(n.textContent))))
                    .observe(document.getElementById('speaker'), { childList: true });
            }"""
        )
        v.ask("Hello")
        heard = page.evaluate("window.heard")
        assert heard[-1] == "End of the answer.", heard
        chunks = len(answers.deltas(answers.MARKDOWN))
        assert 2 <= len(heard) <= chunks / 5, (len(heard), chunks)
        said = " ".join(heard)
        assert "length 1.5 m known since 1958 Count them: by sound by sight Protect them." in said, said
        assert "Code." in said and "power.iter" not in said, said
        expect(page.locator("#speaker")).to_have_attribute("aria-live", "polite")
        # While the answer is written, whole sentences only.
        page.evaluate("window.heard = []")
        v.ask("think", wait=False)
        expect(page.locator("#speaker")).to_contain_text("The model is thinking.")
        page.keyboard.press("Escape")
        v.wait()


@test
def right_to_left():
    with visit(locale="ar") as v:
        page = v.open()
        expect(page.locator("html")).to_have_attribute("dir", "rtl")
        expect(page.locator("html")).to_have_attribute("lang", "ar")
        v.ask("ما هي الفاكيتا؟")
        written = answer(page).locator(".answer")
        directions = written.locator("p, ul, li, pre").evaluate_all("all => all.map(e => [e.localName, getComputedStyle(e).direction])")
        assert directions == [["p", "rtl"], ["ul", "rtl"], ["li", "rtl"], ["li", "rtl"], ["p", "ltr"], ["pre", "ltr"]], directions
        question = page.locator(".question").bounding_box()
        assert question["x"] < 640, "a question stands at the end of the line"


@test
def every_language_opens():
    with visit() as v:
        page = v.open()
        page.get_by_role("button", name="Settings").click()
        codes = [code for code in page.locator("#field-language option").evaluate_all("all => all.map(o => o.value)") if code]
        assert len(codes) == 10
        page.keyboard.press("Escape")
        greetings = set()
        for code in codes:
            page.locator("#open-settings").click()
            page.locator("#field-language").select_option(code)
            page.locator("dialog button.main").click()
            expect(page.locator("html")).to_have_attribute("lang", code)
            greetings.add(page.locator("#greeting h2").inner_text())
        assert len(greetings) == 10
        for locale, code in {"zh-TW": "zh", "pt-BR": "pt", "sv-SE": "en"}.items():
            with visit(locale=locale) as other:
                other.open()
                expect(other.page.locator("html")).to_have_attribute("lang", code)


PHONE = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}


@test
def on_a_phone():
    with visit(**PHONE) as v:
        page = v.open()
        page.locator("#box").tap()
        page.keyboard.type("One")
        page.keyboard.press("Enter")
        page.keyboard.type("Two")
        assert page.locator("#box").input_value() == "One\nTwo"
        assert v.stub.requests == []
        page.locator("#send").tap()
        v.wait()
        expect(page.locator(".message.user")).to_have_text("One\nTwo")
        width = page.evaluate("[document.documentElement, document.getElementById('transcript')].map(e => e.scrollWidth - e.clientWidth)")
        assert width == [0, 0], width
        # The list lies over the conversation, which cannot be reached meanwhile.
        expect(page.locator("#history")).not_to_be_visible()
        page.get_by_role("button", name="Show conversations").tap()
        expect(page.locator("#conversations .title")).to_have_text("One")
        assert page.locator("main").evaluate("e => e.inert")
        page.keyboard.press("Escape")
        expect(page.locator("#history")).not_to_be_visible()
        # A keyboard takes the lower half: the box stays in sight.
        page.set_viewport_size({"width": 320, "height": 330})
        expect(page.locator("#box")).to_be_in_viewport(ratio=1)
        expect(page.locator("#send")).to_be_in_viewport(ratio=1)


@test
def over_plain_http_from_another_machine():
    # Neither `randomUUID`, nor the clipboard, nor a service worker is there.
    with visit(host="board.test") as v:
        v.expected = ("Cross-Origin-Opener-Policy header has been ignored",)
        page = v.open()
        assert not page.evaluate("isSecureContext")
        v.ask("Hello")
        copy = answer(page).locator(".code button").first
        copy.click()
        expect(copy).to_contain_text("Copied")
        page.locator("#box").focus()
        page.keyboard.press("Control+V")
        assert page.locator("#box").input_value().startswith("/// Energy of a token")


@test
def the_history_can_be_read_offline():
    with visit() as v:
        v.expected = ("ERR_CONNECTION_REFUSED", "ERR_FAILED", "Failed to load")
        page = v.open()
        v.ask("Hello")
        page.evaluate("navigator.serviceWorker.ready")
        page.reload()
        page.wait_for_function("navigator.serviceWorker.controller !== null")
        v.stub.close()
        page.reload()
        expect(page.locator("#model")).to_have_text("The server cannot be reached.")
        expect(page.locator(".question")).to_have_text("Hello")
        v.ask("And now?", wait=False)
        expect(answer(page).get_by_role("alert").locator("span")).to_have_text("The server cannot be reached.")


@test
def several_conversations_are_answered_at_once():
    with visit() as v:
        page = v.open()
        v.ask("slow 150", wait=False)
        expect(answer(page)).to_contain_text("word3")
        page.get_by_role("button", name="New conversation").first.click()
        expect(page.locator("#conversations .writing")).to_have_count(1)
        v.ask("unmeasured")
        expect(answer(page).locator(".answer")).to_have_text("Fine.")
        page.locator("#conversations .title", has_text="slow").click()
        expect(answer(page)).to_contain_text("word149", timeout=20_000)
        words = answer(page).locator(".answer").inner_text().split()
        assert words == [f"word{i}" for i in range(150)]


def violations(page):
    page.evaluate(Path(visiting.options.axe).read_text() + "; undefined")
    found = page.evaluate(
        "axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })"
    )
    return [(v["id"], [node["html"][:120] for node in v["nodes"]], [node["any"][:1] for node in v["nodes"]][:2]) for v in found["violations"]]


@test
def accessibility():
    if not visiting.options.axe:
        print("  skipped: no axe-core", flush=True)
        return
    settings = [
        {"locale": "en-US"},
        {"locale": "ar", "color_scheme": "dark"},
        {"locale": "zh-CN", **PHONE},
        {"locale": "en-US", "color_scheme": "dark", **PHONE, "reduced_motion": "reduce"},
    ]
    for given in settings:
        with visit(**given) as v:
            page = v.open()
            assert violations(page) == [], violations(page)
            page.locator("#box").fill("ما هي الفاكيتا؟" if given["locale"] == "ar" else "Hello")
            page.locator("#send").click()
            v.wait()
            answer(page).locator(".reasoning summary").click()
            answer(page).locator(".cost summary").click()
            answer(page).locator("button", has=page.locator(".icon-again")).click()
            v.wait()
            assert violations(page) == [], violations(page)
            if given.get("is_mobile"):
                page.locator("#open-history").click()
                assert violations(page) == [], violations(page)
            page.locator("#conversations .title + button").click()
            assert violations(page) == [], violations(page)
            page.keyboard.press("Escape")
            page.locator("#open-settings").click()
            assert violations(page) == [], violations(page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("unpacked")
    parser.add_argument("--axe", help="axe.min.js of axe-core")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--only", default="", help="tests whose name contains this")
    visiting.run(parser.parse_args())
