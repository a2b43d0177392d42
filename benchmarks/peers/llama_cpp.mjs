// Answers lines of JSON on stdin, {prompts, tokens}, with the sampled ids of each prompt; started by llama_cpp.py.
import readline from "node:readline";
import { getLlama } from "node-llama-cpp";

const [path, threads, capacity, slots] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", maxThreads: Number(threads), logLevel: "error" });
const model = await llama.loadModel({ modelPath: path });
const context = await model.createContext({
  contextSize: Number(capacity),
  sequences: Number(slots),
  batchSize: Math.min(2048, Number(capacity) * Number(slots)),
  threads: Number(threads),
});
const sequences = Array.from({ length: Number(slots) }, () => context.getSequence());

async function reply(sequence, prompt, tokens) {
  await sequence.clearHistory();
  const found = [];
  const options = { temperature: 1, topK: 0, topP: 1, minP: 0, yieldEogToken: true };
  for await (const token of sequence.evaluate(prompt, options)) {
    found.push(token);
    if (found.length === tokens) break;
  }
  return found;
}

console.log(JSON.stringify({ threads: context.currentThreads, version: llama.llamaCppRelease }));
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { prompts, tokens } = JSON.parse(line);
  const replies = await Promise.all(prompts.map((prompt, i) => reply(sequences[i], prompt, tokens)));
  console.log(JSON.stringify(replies));
}
process.exit(0);
