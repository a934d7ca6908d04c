// Formulas as MathML, which browsers draw by themselves.

const MATH = { trust: false, strict: false, throwOnError: true, maxSize: [20, 20], maxExpand: 300 };

// Longer formulas are shown as they were written.
const FORMULA_LIMIT = 4_000;

function formula(source, display) {
  const place = h(display ? 'div.formula' : 'span.formula', { dir: 'ltr' });
  try {
    if (source.length > FORMULA_LIMIT) throw new Error('too long');
    const tree = library('temml').__renderToMathMLTree(source, { ...MATH, displayMode: display });
    freeOfInlineStyles(tree);
    place.append(tree.toNode());
    if (place.querySelector('a, img, [href], [src]')) throw new Error('formulas request nothing');
  } catch {
    place.replaceChildren(h('code', {}, source));
  }
  if (display) place.tabIndex = 0;
  return place;
}

// The policy forbids `style` as an attribute, and allows it as a property.
function freeOfInlineStyles(node) {
  const style = node.attributes?.style;
  if (style !== undefined) {
    delete node.attributes.style;
    for (const rule of style.split(';')) {
      const [name, value] = rule.split(':');
      if (value) node.style[name.trim()] = value.trim();
    }
  }
  for (const child of node.children ?? []) freeOfInlineStyles(child);
}
