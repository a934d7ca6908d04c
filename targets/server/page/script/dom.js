// Elements: h('p.note', { title }, 'text', child). Text is always text: nothing here parses HTML.

function h(what, properties, ...children) {
  const [tag, ...classes] = what.split('.');
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(' ');
  for (const [name, value] of Object.entries(properties ?? {})) set(element, name, value);
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

function set(element, name, value) {
  if (value === undefined || value === null) return;
  if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
  else if (name in element && name !== 'list' && name !== 'form') element[name] = value;
  else element.setAttribute(name, value);
}

const byId = id => document.getElementById(id);

// Runs `work` once before the next frame, however often it is asked to.
function perFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    // A page in the background has no frames, but goes on receiving.
    const later = document.hidden ? call => setTimeout(call, 250) : requestAnimationFrame;
    later(() => {
      asked = false;
      work();
    });
  };
}

// Runs `work` when nothing has asked for it during `ms`.
function whenQuiet(ms, work) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), ms);
  };
}

// A library of the bundle, started when it is first needed.
const started = new Map();
function library(name) {
  if (!started.has(name)) {
    const module = { exports: {} };
    started.set(name, LIBRARIES[name](module, module.exports));
  }
  return started.get(name);
}
