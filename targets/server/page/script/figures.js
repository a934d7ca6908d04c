// What an answer cost, from the server's `timings` and `usage`.

// The line below an answer. The energy is known at its end.
function summary(message) {
  const { timings, usage } = message;
  const speed = timings?.predicted_per_second;
  const tokens = usage?.completion_tokens ?? timings?.predicted_n;
  const parts = [];
  if (speed > 0) parts.push(say('tokens_per_second', { speed: quantity(speed) }));
  if (tokens > 0) parts.push(say('tokens', { n: tokens }));
  if (timings && !running(message)) parts.push(energy(timings, true));
  return parts.join(' · ');
}

// Name and value of every figure that is known.
function figures({ timings, usage, model, finish }) {
  const rows = [];
  const add = (name, value) => value && rows.push([name, value]);
  const read = usage?.prompt_tokens ?? (timings ? (timings.cache_n ?? 0) + (timings.prompt_n ?? 0) : undefined);
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? timings?.cache_n ?? 0;
  if (read >= 0) add(say('prompt'), say('prompt_tokens', { n: read, cached }));
  if (timings?.prompt_ms > 0 && timings.prompt_n > 0) {
    add(
      say('reading'),
      say('in_time', {
        speed: quantity(timings.prompt_per_second ?? (timings.prompt_n * 1000) / timings.prompt_ms),
        time: duration(timings.prompt_ms / 1000),
      }),
    );
  }
  const written = usage?.completion_tokens ?? timings?.predicted_n;
  if (written >= 0) add(say('answer'), say('tokens', { n: written }));
  const thought = usage?.completion_tokens_details?.reasoning_tokens;
  if (thought > 0) add(say('reasoning'), say('tokens', { n: thought }));
  if (timings?.predicted_ms > 0) {
    add(
      say('writing'),
      say('in_time', {
        speed: quantity(timings.predicted_per_second),
        time: duration(timings.predicted_ms / 1000),
      }),
    );
  }
  if (timings) add(say('energy'), energy(timings, false));
  const experts = timings?.experts;
  if (experts && typeof experts === 'object' && experts.bytes_read >= 0) {
    const all = experts.hits + experts.misses;
    const share = all > 0 ? Math.round((experts.hits / all) * 100) : 100;
    add(say('experts'), say('experts_read', { bytes: bytes(experts.bytes_read), share }));
  }
  if (timings?.draft_n > 0)
    add(say('drafts'), say('n_of_m', { n: timings.draft_n_accepted ?? 0, m: timings.draft_n }));
  if (server.context && read >= 0 && written >= 0)
    add(say('context'), say('n_of_m', { n: read + written, m: server.context }));
  add(say('model'), model);
  if (finish === 'length') add(say('ended'), say('ended_length'));
  return rows;
}

// Joules per token, and in full the whole and the meter. What no meter measured is "unmeasured".
function energy({ energy: measured }, brief) {
  if (!measured || typeof measured !== 'object' || !(measured.joules_per_token >= 0)) {
    return brief ? say('energy_unmeasured') : say('unmeasured');
  }
  const each = quantity(measured.joules_per_token);
  if (brief) return say('joules_per_token', { joules: each });
  const meter = typeof measured.meter === 'string' ? measured.meter : '';
  return say('joules', { total: quantity(measured.joules), joules: each, meter });
}
