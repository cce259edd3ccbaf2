import type { DiskContender, DiskStore } from './contender.ts'

export const ours = 'spillway'
export const forProcess = 'spillway, durability process'
export const memory = 'spillway, memoryLog'
export const buffer = 'spillway, buffer of the broker'
export const plain = 'node:sqlite by hand'
export const file = 'floor: append + fdatasync'

// Loaded when wanted: a Node without SQLite still has the others.
const spillway = (open: 'onDisk' | 'onDiskForProcess' | 'inMemoryLog' | 'inBuffer') => {
  return async (path: string): Promise<DiskStore> => (await import('./contenders/spillway.ts'))[open](path)
}

export const diskContenders: readonly DiskContender[] = [
  { name: ours, role: 'ours', joins: true, open: spillway('onDisk') },
  { name: forProcess, role: 'ours', joins: true, open: spillway('onDiskForProcess') },
  { name: memory, role: 'ours', joins: true, inMemory: true, open: spillway('inMemoryLog') },
  { name: buffer, role: 'ours', joins: true, inMemory: true, open: spillway('inBuffer') },
  {
    name: plain,
    role: 'peer',
    joins: false,
    open: async (path) => (await import('./contenders/sqlite.ts')).openSqlite(path),
  },
  {
    name: file,
    role: 'floor',
    joins: false,
    open: async (path) => (await import('./contenders/file.ts')).openFile(path),
  },
]

export function diskContender(name: string): DiskContender {
  const found = diskContenders.find((contender) => contender.name === name)
  if (!found) throw new Error(`There is no contender "${name}".`)
  return found
}
