// The server as Node's clients see it. SERVER is the address.

import assert from 'node:assert/strict';
import { createDeepSeek } from '@ai-sdk/deepseek';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateObject, generateText, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { z } from 'zod';

const baseURL = `${process.env.SERVER}/v1`;
const prompt = '723 * 8 = ?';
const schema = z.object({ a: z.number().int(), b: z.number().int() });
const messages = [{ role: 'user', content: prompt }];

async function openai() {
    const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
    const ask = { model: 'reference', messages, temperature: 0 };
    assert.equal((await client.chat.completions.create(ask)).choices[0].message.content, '5784');
    const stream = client.chat.completions.stream(ask);
    assert.equal((await stream.finalChatCompletion()).choices[0].message.content, '5784');
    const response = await client.responses.create({ model: 'reference', input: prompt, temperature: 0 });
    assert.equal(response.output_text, '5784');
}

async function sdk(model, held) {
    const ask = { model, prompt, temperature: 0, maxRetries: 0 };
    const answer = await generateText(ask);
    assert.equal(answer.text, '5784');
    assert.match(answer.reasoningText, /carry/);
    let text = '';
    const stream = streamText({ ...ask, onError: ({ error }) => { throw error; } });
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, '5784');
    const tools = { multiply: tool({ description: 'Multiplies', inputSchema: schema }) };
    const called = await generateText({ ...ask, tools, toolChoice: 'required' });
    schema.parse(called.toolCalls[0].input);
    if (held) schema.parse((await generateObject({ ...ask, schema })).object);
}

const compatible = createOpenAICompatible({ name: 'vaquita', baseURL, supportsStructuredOutputs: true });
const behaviours = {
    openai,
    'ai with openai-compatible': () => sdk(compatible('reference'), true),
    'ai with deepseek': () => sdk(createDeepSeek({ baseURL, apiKey: 'none' })('reference'), false),
};
let failed = 0;
for (const [name, behaviour] of Object.entries(behaviours)) {
    try {
        await behaviour();
        console.log(`ok      ${name}`);
    } catch (error) {
        failed += 1;
        console.log(`FAILED  ${name}\n${error.stack}`);
    }
}
process.exit(failed ? 1 : 0);
