import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { createInterface } from 'node:readline'

const require = createRequire(import.meta.url)

/** Another runtime for JavaScript that this repository brings along; `undefined` where it has none for this machine. */
export function runtime(name: 'bun' | 'deno'): string | undefined {
  const arch = process.arch === 'arm64' ? { bun: 'aarch64', deno: 'arm64' } : { bun: 'x64-baseline', deno: 'x64' }
  const file = { bun: `@oven/bun-linux-${arch.bun}/bin/bun`, deno: `@deno/linux-${arch.deno}-glibc/deno` }[name]
  const folder = (require.resolve.paths(file) ?? []).find((each) => existsSync(path.join(each, file)))
  return process.platform === 'linux' && folder ? path.join(folder, file) : undefined
}

/** The first of the browsers that tests know, or `undefined`. */
export function browser(): string | undefined {
  return ['chromium', 'chromium-browser', 'google-chrome']
    .flatMap((name) => (process.env.PATH ?? '').split(path.delimiter).map((folder) => path.join(folder, name)))
    .find((file) => existsSync(file))
}

/** Runs a program that prints lines of JSON, and gives them. Rejects if it fails. */
export async function jsonLines<T>(program: string, args: readonly string[]): Promise<T[]> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let errors = ''
  child.stderr.on('data', (text) => {
    errors += text
  })
  const ended = new Promise((resolve, reject) => child.on('error', reject).on('close', resolve))
  const lines: T[] = []
  for await (const line of createInterface(child.stdout)) lines.push(JSON.parse(line) as T)
  const code = await ended
  if (code !== 0) throw new Error(`${program} ended with ${code}: ${errors}`)
  return lines
}
