plugins {
    alias(libs.plugins.android)
    alias(libs.plugins.kotlin)
}

val executorch =
    providers.gradleProperty("executorch").orNull
        ?: throw GradleException("executorch is not set; say -Pexecutorch=FOLDER, a checkout of ExecuTorch 1.5 with its submodules")

android {
    namespace = "org.dqtoolchain.draw"
    compileSdk = libs.versions.sdk.get().toInt()
    ndkVersion = libs.versions.ndk.get()

    defaultConfig {
        applicationId = "org.dqtoolchain.draw"
        minSdk = libs.versions.oldest.get().toInt()
        targetSdk = libs.versions.sdk.get().toInt()
        versionCode = 1
        versionName = "1"
        ndk { abiFilters += "arm64-v8a" }
        externalNativeBuild {
            cmake {
                targets += "dq_draw"
                // Release also in a debug build of the app: without optimization a picture takes hours.
                arguments += listOf("-DDQ_EXECUTORCH=$executorch", "-DANDROID_STL=c++_static", "-DCMAKE_BUILD_TYPE=Release")
            }
        }
    }

    externalNativeBuild {
        cmake {
            path = file("src/main/cpp/CMakeLists.txt")
            version = libs.versions.cmake.get()
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    kotlinOptions { jvmTarget = "17" }
}

dependencies { implementation(libs.core) }
