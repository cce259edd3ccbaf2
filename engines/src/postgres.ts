import { execFileSync } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { freePort } from './free-port.ts'
import { type EngineProcess, startProcess } from './process.ts'

/** A PostgreSQL server that runs, with an empty database. */
export interface PostgresServer extends EngineProcess {
  /** Of its superuser, without a password. */
  readonly url: string
  readonly folder: string
  /** Starts it again, after it has ended, on the same port and files. */
  restart(): Promise<PostgresServer>
  /** Stops it, and deletes what it stored. */
  remove(): Promise<void>
}

/** The newest `postgres` of this machine, if there is one. */
export function postgresProgram(): string | undefined {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const candidates = [
    ...versions.map((version) => path.join(debian, version, 'bin')),
    ...(process.env.PATH ?? '').split(path.delimiter),
  ]
  return candidates.map((folder) => path.join(folder, 'postgres')).find(existsSync)
}

/** Starts a PostgreSQL of its own on 127.0.0.1, with `settings` as `name=value`. Throws if there is none on this machine. */
export async function startPostgres({ settings = [] }: { settings?: readonly string[] } = {}): Promise<PostgresServer> {
  const program = postgresProgram()
  if (!program) throw new Error('There is no PostgreSQL on this machine: `npm test` installs it where it can.')
  const port = await freePort()
  const folder = mkdtempSync(path.join(tmpdir(), 'spillway-postgres-'))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  process.on('exit', remove)
  const user = unprivileged()
  if (user) chownSync(folder, user.uid, user.gid)
  const data = path.join(folder, 'data')
  const initdb = path.join(path.dirname(program), 'initdb')
  execFileSync(initdb, ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-locale', '--no-sync'], {
    ...user,
    cwd: folder,
    stdio: 'pipe',
  })
  const all = [`port=${port}`, 'listen_addresses=127.0.0.1', `unix_socket_directories=${folder}`, ...settings]
  const start = async (): Promise<PostgresServer> => {
    const engine = await startProcess(
      program,
      ['-D', data, ...all.flatMap((setting) => ['-c', setting])],
      (output) => output.includes('database system is ready to accept connections'),
      { ...user, cwd: folder },
    )
    return Object.assign(Object.create(engine), {
      url: `postgres://postgres@127.0.0.1:${port}/postgres`,
      folder,
      restart: start,
      async remove() {
        // Its children end with it only if it is asked.
        await engine.stop('SIGINT')
        remove()
        process.removeListener('exit', remove)
      },
    })
  }
  return start()
}

/** PostgreSQL refuses to run as root. */
function unprivileged(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }))
  return { uid: id('-u'), gid: id('-g') }
}
