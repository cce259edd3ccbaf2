import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from './free-port.ts'
import { type EngineProcess, startProcess } from './process.ts'

/** A `nats-server` that runs, with JetStream. */
export interface NatsServer extends EngineProcess {
  readonly url: string
  readonly port: number
  /** Its monitoring endpoint. */
  readonly monitor: string
  /** Its configuration, and below it what it stores. Goes with `remove`, or with this process. */
  readonly folder: string
  /** Starts it again, after it has ended, on the same ports and files. */
  restart(): Promise<NatsServer>
  /** Stops it, and deletes what it stored. */
  remove(): Promise<void>
}

export interface NatsServerOptions {
  /** Which one. Default: the newest that is installed. */
  readonly program?: string
  readonly port?: number
  /** Lines that are added to the configuration. */
  readonly config?: string
  /** Lines that are added to the `jetstream` block. */
  readonly jetstream?: string
  /** The folder in which it stores. Default: a new one. */
  readonly folder?: string
  /** Bytes that a message may have. Default: 1 MiB, as the engine's. */
  readonly maxPayload?: number
}

const installed = fileURLToPath(new URL('../../node_modules/.spillway-engines', import.meta.url))

/** The `nats-server` programs of this machine with their versions, each once, newest first: those that the tests brought, and those on the PATH. */
export function natsPrograms(): readonly { readonly program: string; readonly version: string }[] {
  const brought = existsSync(installed)
    ? readdirSync(installed).map((name) => path.join(installed, name, 'usr/sbin/nats-server'))
    : []
  const onPath = (process.env.PATH ?? '').split(path.delimiter).map((folder) => path.join(folder, 'nats-server'))
  const found = [...brought, ...onPath]
    .filter((program) => existsSync(program))
    .map((program) => ({ program, version: versionOf(program) }))
  return found
    .filter(({ version }, n) => found.findIndex((other) => other.version === version) === n)
    .sort((a, b) => b.version.localeCompare(a.version, 'en', { numeric: true }))
}

function versionOf(program: string): string {
  const text = execFileSync(program, ['--version'], { encoding: 'utf8' })
  return /v?(\d+\.\d+\.\d+)/.exec(text)?.[1] ?? '0.0.0'
}

const folders = new Set<string>()
process.on('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

/** Starts a `nats-server` on 127.0.0.1. Throws if there is none on this machine. */
export async function startNats(options: NatsServerOptions = {}): Promise<NatsServer> {
  const program = options.program ?? natsPrograms()[0]?.program
  if (!program) throw new Error('There is no nats-server on this machine: `npm test` installs one where it can.')
  const port = options.port ?? (await freePort())
  const monitorPort = await freePort()
  const folder = options.folder ?? mkdtempSync(path.join(tmpdir(), 'spillway-nats-'))
  folders.add(folder)
  const file = path.join(folder, 'nats.conf')
  writeFileSync(
    file,
    `listen: "127.0.0.1:${port}"
http: "127.0.0.1:${monitorPort}"
${options.maxPayload ? `max_payload: ${options.maxPayload}` : ''}
jetstream {
  store_dir: "${folder}"
  ${options.jetstream ?? ''}
}
${options.config ?? ''}
`,
  )
  const start = async (): Promise<NatsServer> => {
    const engine = await startProcess(program, ['-c', file], (output) => output.includes('Server is ready'))
    return Object.assign(Object.create(engine), {
      url: `nats://127.0.0.1:${port}`,
      port,
      monitor: `http://127.0.0.1:${monitorPort}`,
      folder,
      restart: start,
      async remove() {
        await engine.stop()
        rmSync(folder, { recursive: true, force: true })
        folders.delete(folder)
      },
    })
  }
  return start()
}
