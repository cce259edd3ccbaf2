import { jsonOf, type Remote, request } from '../remote.ts'
import { columns, formatted, paintFor, plain } from '../terminal.ts'
import { type Command, defineCommand } from './command.ts'
import { asFailure, remoteOf, remoteOptions, tokenNote } from './remote-options.ts'

/** `spillway status`. */
export const status: Command = defineCommand({
  name: 'status',
  summary: 'Show what a server keeps and how many readers it has.',
  usage: ['spillway status [options]'],
  options: { ...remoteOptions, json: { type: 'boolean', help: 'Print the answer as JSON, as it came.' } },
  notes: [tokenNote],
  examples: ['spillway status', 'spillway status --url http://127.0.0.1:8080 --json'],
  async run({ url, json }) {
    const remote = remoteOf(url)
    const found = await read(remote).catch((error: unknown) => {
      throw asFailure(error)
    })
    process.stdout.write(json ? `${JSON.stringify(found)}\n` : pretty(remote, found))
    return 0
  },
})

async function read(remote: Remote): Promise<Record<string, unknown>> {
  return jsonOf(remote, await request(remote, 'v1/status', { signal: AbortSignal.timeout(10_000) }))
}

function pretty(
  remote: Remote,
  { epoch, oldest, newest, floor, retained, bytes, subscriptions, ...rest }: Record<string, unknown>,
): string {
  const paint = paintFor(process.stdout)
  const rows: [string, string][] = [
    ['history', text(epoch)],
    ['kept', `${count(retained, 'batch', 'batches')}, ${size(bytes)}`],
    ['indexes', oldest === null ? `none kept; the newest was ${text(newest)}` : `${text(oldest)} to ${text(newest)}`],
    ['dropped up to', text(floor)],
    ['subscriptions', text(subscriptions)],
    ...Object.entries(rest).map(([name, value]): [string, string] => [plain(name), text(value)]),
  ]
  const width = Math.max(...rows.map(([name]) => columns(name))) + 2
  const lines = rows.map(([name, value]) => `  ${paint('dim', name.padEnd(width))}${value}`)
  return `${[paint('bold', remote.url.origin), ...lines].join('\n')}\n`
}

function text(value: unknown): string {
  if (typeof value === 'number') return formatted(value)
  return plain(typeof value === 'string' ? value : JSON.stringify(value ?? null))
}

function count(value: unknown, one: string, many: string): string {
  return `${text(value)} ${value === 1 ? one : many}`
}

function size(value: unknown): string {
  if (typeof value !== 'number') return text(value)
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = value < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10))
  return `${(value / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`
}
