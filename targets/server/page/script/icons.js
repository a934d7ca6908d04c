// Icons: strokes on a field of 24 by 24.

const ICONS = {
  sidebar: 'M4 5h16v14H4zM10 5v14',
  plus: 'M12 5v14M5 12h14',
  search: 'M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4.5 4.5',
  transfer: 'M8 4v13M4.5 13.5 8 17l3.5-3.5M16 20V7M12.5 10.5 16 7l3.5 3.5',
  sliders: 'M4 7h9M17 7h3M4 17h3M11 17h9M15 4.5v5M9 14.5v5',
  down: 'M12 5v14M6 13l6 6 6-6',
  up: 'M12 19V5M6 11l6-6 6 6',
  clip: 'm19 11-7.5 7.5a4.6 4.6 0 0 1-6.5-6.5l8-8a3 3 0 0 1 4.3 4.3l-7.7 7.7a1.4 1.4 0 0 1-2-2l6.9-6.9',
  thought: 'M9.5 18h5M10.5 21h3M8.5 15c-2-1.5-3-3.3-3-5.500a6.5 6.5 0 0 1 13 0c0 2.2-1 4-3 5.500z',
  stop: 'M8 8h8v8H8z',
  copy: 'M9 9h10v11H9zM15 9V4H5v11h4',
  done: 'm5 12.5 4.5 4.500L19 7.5',
  again: 'M19.5 12a7.5 7.5 0 1 1-2.2-5.300L20 9.400M20 4.500v5h-5',
  edit: 'm5 19 1-4L16.5 4.500l3 3L9 18zM14 7l3 3',
  previous: 'm14.5 6-6 6 6 6',
  next: 'm9.5 6 6 6-6 6',
  more: 'M6 12h.01M12 12h.01M18 12h.01',
  close: 'm6 6 12 12M18 6 6 18',
  file: 'M6 3.500h8l4 4v13H6zM14 3.500v4h4',
};

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.classList.add('icon', `icon-${name}`);
  const path = document.createElementNS(svg.namespaceURI, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

// A button with an icon, whose name is for the screen reader and the pointer that rests.
function iconButton(name, label, onclick) {
  return h('button.plain', { type: 'button', 'aria-label': label, title: label, onclick }, icon(name));
}
