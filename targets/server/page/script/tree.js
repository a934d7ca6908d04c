// A conversation is a tree: a question that was edited and an answer that was written again are siblings of the first.
// `messages` is a map from id to message; a message names its parent; the leaf says which branch is shown.

// Messages from the root to `leaf`.
function path(messages, leaf) {
  const found = [];
  for (let message = messages.get(leaf); message; message = messages.get(message.parent)) {
    found.push(message);
  }
  return found.reverse();
}

// The message among its alternatives, in the order in which they were made.
function siblings(messages, message) {
  return [...messages.values()]
    .filter(other => other.parent === message.parent)
    .sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
}

// The newest leaf below `message`.
function newestLeaf(messages, message) {
  const below = new Map();
  for (const other of messages.values()) {
    const newest = below.get(other.parent);
    if (!newest || newest.created <= other.created) below.set(other.parent, other);
  }
  let leaf = message;
  while (below.has(leaf.id)) leaf = below.get(leaf.id);
  return leaf.id;
}
