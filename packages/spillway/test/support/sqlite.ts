const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)

/** Whether this Node brings SQLite. */
export const hasSqlite: boolean = major > 22 || (major === 22 && minor >= 13)
